"""Keras callbacks: the budget of multiply-adds and the log of sparsity."""
