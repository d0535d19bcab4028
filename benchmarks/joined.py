"""What a joined device takes: memory, time and bytes of its rounds, by a real gateway over TLS.

    python -m benchmarks.joined [--python OTHER/bin/python]

``--python``: an environment with ``fedali[join]`` alone, as a device has it; without, the one that runs this.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.edge_bundles import fresh_source
from fedali_server.export.bundle_export import export_bundle
from tests.gateways import EVALUATE, TRAIN, ProvisionedSite

ROUNDS, EPOCHS, SAMPLES = 3, 5, 480
WORKLOADS = {
    "cnn1d, windows [128, 6]": ("cnn1d", (64,), (128, 6)),
    "cnn2d, digits [1, 8, 8]": ("cnn2d", (32,), (1, 8, 8)),
    "mlp, 64 features": ("mlp", (32,), (64,)),
}
ENCODINGS = {"float32": 1, "float16": 2, "int8": 3}


def main() -> None:
    """Print a line of JSON for each workload."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--python", default=sys.executable, metavar="PATH")
    parser.add_argument("--only", metavar="WORD", default="", help="workloads with this in their name")
    options = parser.parse_args()
    for name, (model, prototypes, shape) in WORKLOADS.items():
        if options.only in name:
            for encoding in ENCODINGS if name == next(iter(WORKLOADS)) else ["float32"]:
                print(
                    json.dumps(
                        {
                            "workload": name,
                            "encoding": encoding,
                            **_measure(options.python, model, prototypes, shape, encoding),
                        }
                    )
                )


def _measure(
    python: str, model: str, prototypes: tuple[int, ...], shape: tuple[int, ...], encoding: str
) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as name, ProvisionedSite(Path(name), devices=1) as site:
        folder = Path(name)
        export_bundle(folder / "m.fedali", fresh_source(model, prototypes, shape=shape), key=site.signer)
        site.put(folder / "m.fedali")
        site.start_state.theta[:] = 0.02 * site.start_state.theta
        random = np.random.default_rng(0)
        for part, count in (("train", SAMPLES), ("test", SAMPLES // 4)):
            y = random.integers(0, len(site.manifest.classes), count)
            x = random.standard_normal((count, *shape)).astype(np.float32) + y.reshape(-1, *[1] * len(shape))
            np.savez(folder / f"{part}.npz", x=x, y=y)
        words = ["join", site.kits / "a-0", "--data", folder / "train.npz", "--test", folder / "test.npz"]
        device = subprocess.Popen(
            [python, "-m", "fedali_client", *map(str, words), "--state", str(folder / "state"), "--quiet"],
            stderr=subprocess.PIPE,
        )
        seconds, sent, received = [], [], []
        try:
            for round_ in range(1, ROUNDS + 1):
                for kind in (TRAIN, EVALUATE):
                    began = time.perf_counter()
                    outcome = site.begin(
                        site.order(round_, kind, epochs=EPOCHS, encoding=ENCODINGS[encoding])
                    ).result()
                    (report,) = outcome.devices
                    assert report.state == "done", report
                    if kind == TRAIN:
                        seconds.append(time.perf_counter() - began)
                        sent.append(report.received)
                        received.append(report.sent)
            facts = dict(
                line.split(":", 1) for line in Path(f"/proc/{device.pid}/status").read_text().splitlines()
            )
        finally:
            device.terminate()
            device.communicate()
        return {
            "parameters": site.layouts.parameters.size,
            "prototypes": site.layouts.prototypes.size,
            "peak_rss_mb": round(int(facts["VmHWM"].split()[0]) * 1024 / 1e6, 1),
            "rss_mb": round(int(facts["VmRSS"].split()[0]) * 1024 / 1e6, 1),
            "bundle_bytes": len(site.bundle),
            "round_seconds": [round(value, 3) for value in seconds],
            "bytes_from_device": sent,
            "bytes_to_device": received,
        }


if __name__ == "__main__":
    main()
