"""FedAli: federated learning of personalised models by alignment with prototypes (arXiv 2411.10595).

Importing this package needs numpy alone; torch, Flower and POT are loaded by the modules that use them.
"""

import os

from fedali.errors import CheckpointError, DataError, FedaliError, MissingExtraError, SettingsError
from fedali.version import __version__

# Since 1.29 onnxruntime tells Microsoft of each model it opens, by hashes and names, unless it is told not to before it
# is loaded. Who wants it sets the variable to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__all__ = ["CheckpointError", "DataError", "FedaliError", "MissingExtraError", "SettingsError", "__version__"]
