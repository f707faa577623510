"""Recurrent layers and their fused kernels."""
