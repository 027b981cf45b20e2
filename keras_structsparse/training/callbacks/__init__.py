"""Keras callbacks: a target for the multiply-adds, a log of sparsity, and lists of callbacks."""
