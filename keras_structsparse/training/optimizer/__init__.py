"""`Proximal`: exact proximal steps inside Keras' optimizers."""
