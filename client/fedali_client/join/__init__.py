"""A device's part in a federation: ``fedali-client join KIT``.

``session`` is the life of a device: enrol, wait for a task, do it, send what came out. ``work`` does a task, ``gateway`` talks
to the gateway, ``journal`` and ``artifacts`` are what is on the disk.
"""
