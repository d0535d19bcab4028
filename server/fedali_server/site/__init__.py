"""A site: over a gateway with its devices, or over data of its own."""
