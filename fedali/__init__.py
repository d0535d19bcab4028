"""FedAli: federated learning of personalised models by alignment with prototypes (arXiv 2411.10595).

Importing this package needs numpy alone; torch, Flower and POT are loaded by the modules that use them.
"""

from fedali.errors import CheckpointError, DataError, FedaliError, MissingExtraError, SettingsError
from fedali.version import __version__

__all__ = ["CheckpointError", "DataError", "FedaliError", "MissingExtraError", "SettingsError", "__version__"]
