"""Graphs at work on the device: training, inference, alignment."""
