"""Hosting a SuperLink: the process, its keys, and the door in front of it."""
