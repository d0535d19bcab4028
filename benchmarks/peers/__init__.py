"""``make peers``: our methods beside those of an independent implementation, docs/peers.md."""
