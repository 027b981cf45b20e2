"""The channel engine: one walk by the rules of layers says what every channel depends on."""
