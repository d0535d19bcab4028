"""What a device keeps: crash-safe, one folder a bundle."""
