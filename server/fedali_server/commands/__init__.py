"""Commands of whoever runs a federation."""
