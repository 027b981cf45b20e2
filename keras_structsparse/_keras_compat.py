"""Private parts of Keras that this package needs."""
