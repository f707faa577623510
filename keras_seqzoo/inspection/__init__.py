"""Inspection of models: their inputs, outputs, layers, masks and gradients."""
