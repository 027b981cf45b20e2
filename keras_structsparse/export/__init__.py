"""Files for inference: SavedModel, LiteRT and ONNX, tried in a process without this package."""
