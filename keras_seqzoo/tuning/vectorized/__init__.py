"""Trials trained together in one compiled program."""
