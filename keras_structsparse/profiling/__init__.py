"""What networks cost: multiply-adds, parameters, latency, and the Pareto front of it."""
