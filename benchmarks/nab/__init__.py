"""Numenta Anomaly Benchmark: scoring, alarms, seasons, and generated anomalies."""
