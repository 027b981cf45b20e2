"""Functional models as values: read and rebuild them, find prunable layers, follow channels."""
