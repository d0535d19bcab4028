"""Objects in the place of settings: what a scenario, which is text, calls them."""
