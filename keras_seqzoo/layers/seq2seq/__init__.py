"""Attention, decoders and the encoder-decoder model."""
