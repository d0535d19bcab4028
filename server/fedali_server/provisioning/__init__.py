"""Kits, certificates, revocation."""
