"""Measurements behind the README's numbers. Each runs as `python -m benchmarks.NAME`."""
