"""Engines: ways to train many clients on one machine, behind one interface (``base``), chosen by name (``choose``)."""
