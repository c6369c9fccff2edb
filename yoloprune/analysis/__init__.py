"""A look at a network before it is pruned: what can go, and how much the predictions depend on it."""
