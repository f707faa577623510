"""Helpers for all packages: validation, files, seeds, distribution, private APIs of libraries."""
