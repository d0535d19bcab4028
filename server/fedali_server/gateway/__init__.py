"""A site's gateway: where its devices fetch rounds and leave their updates, and where its node gets the sums.

One process for each site: ``python -m fedali_server.gateway KIT``. It holds the devices' identities, deadlines and the
round's sum, and its journal, so that being killed at any moment loses nothing that it acknowledged and counts nothing
twice. Neither torch nor Flower is imported here. ``docs/gateway.md`` says how it works.
"""
