"""Callbacks of a simulation, and the trackers that are made of them."""
