"""Rounds that wait for nobody: FedBuff."""
