"""The report of a run: figures, tables and one HTML page."""
