"""Autoregressive generation: greedy search, beam search and sampling."""
