"""Shrink a trained network to a budget: remove groups gradually, rebuild, tune."""
