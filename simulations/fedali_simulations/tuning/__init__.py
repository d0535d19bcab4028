"""A method's settings, found on validation data."""
