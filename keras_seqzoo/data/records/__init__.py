"""Records of readings: tables in, windows out, and generated ones."""
