"""A run: its rounds, its folder, its checkpoint."""
