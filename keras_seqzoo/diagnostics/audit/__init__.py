"""Checks of a sequence model: masking, batch independence, causality, state."""
