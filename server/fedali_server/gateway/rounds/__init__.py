"""A gateway's rounds: what was ordered, what devices answered, and the sum; all of it on the disk."""
