"""Autoregressive generation: sampling, beam search, ensembles."""
