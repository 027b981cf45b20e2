"""Training of sparse networks: the optimizer, callbacks, cuts on the way, recipes."""
