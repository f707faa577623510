"""Audit of sequence models: masking, batch independence, causality, state and state leakage."""
