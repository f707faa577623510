"""Helpers without a subject of their own: validation, files, random seeds, distribution."""
