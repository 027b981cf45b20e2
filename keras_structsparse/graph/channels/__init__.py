"""The channel engine: one walk over a graph, by the rules of its layers, follows every channel."""
