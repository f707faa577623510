"""Anomaly scores from the residuals of a reconstruction or a forecast."""
