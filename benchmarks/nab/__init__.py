"""The Numenta Anomaly Benchmark: scoring, alarms, seasons, and generated records."""
