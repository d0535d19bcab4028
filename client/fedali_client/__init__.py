"""Edge SDK of FedAli: a personal model on the device, with onnxruntime and numpy, never torch.

>>> from fedali_client import EdgeClient
>>> client = EdgeClient.open("model.fedali", "~/.fedali", trusted_key="site.pub")  # doctest: +SKIP
"""

from fedali_client.client import EdgeClient
from fedali_client.compute.trainer import FitProgress
from fedali_client.results import Evaluation, FitReport, Status, Update

__all__ = ["EdgeClient", "Evaluation", "FitProgress", "FitReport", "Status", "Update"]
