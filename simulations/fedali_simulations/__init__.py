"""Simulate federations on one machine."""
