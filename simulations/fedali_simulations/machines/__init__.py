"""A simulation over several processes or machines."""
