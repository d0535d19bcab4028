"""Commands of whoever simulates."""
