"""A site whose clients' data are in its own folder: the cohort engine trains them, and the server cannot tell.

``fedali site start KIT --data DIR``. To the server it is a site with devices: it has their names and numbers, answers the
same messages, and does a round as those devices would.
"""
