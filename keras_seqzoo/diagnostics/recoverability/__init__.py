"""Recoverability of past inputs from the output, and memory capacity."""
