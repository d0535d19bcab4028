"""All that knows Flower: the strategy, the grid of sites, the SuperLink, a site's node."""
