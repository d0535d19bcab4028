"""The recorded session of ``proto/vectors``: ``record`` makes it at a real gateway, ``reader`` reads it as a stranger would."""
