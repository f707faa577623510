"""Injectivity, inversion and Lipschitz bounds of recurrent models."""
