"""Readers of files: labeled sequences, sequence pairs and time series."""
