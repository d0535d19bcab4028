"""Flower side of FedAli: strategy, checkpoints, site contract."""
