"""Write the bundles and samples of the workloads of ``make bench-edge``: ``python -m benchmarks.edge_prepare FOLDER``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from benchmarks.edge_bundles import write_workload
from benchmarks.edge_workloads import WORKLOADS

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    print(json.dumps({name: write_workload(workload, folder) for name, workload in WORKLOADS.items()}))
