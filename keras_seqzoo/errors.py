"""Exceptions of keras_seqzoo, all derived from `SeqZooError`."""

from __future__ import annotations


class SeqZooError(Exception):
    """Base of every error that keras_seqzoo raises on purpose."""

    def __str__(self) -> str:  # `KeyError` would print the message as a quoted `repr`
        return str(self.args[0]) if self.args else ""


class ArgumentError(SeqZooError, ValueError):
    """An argument has a value or a type that cannot be used."""


class UnknownArgumentError(SeqZooError, TypeError):
    """A constructor has no argument of that name."""


class UnknownNameError(SeqZooError, KeyError):
    """No entry of that name is in the zoo."""


class RegistrationError(SeqZooError, ValueError):
    """An entry is malformed or its name is taken."""


class DataError(SeqZooError, ValueError):
    """Input data cannot be used: wrong rank, not finite, empty, too short, unreadable."""


class ExistsError(SeqZooError, FileExistsError):
    """Something is at that path already and would be overwritten."""


class ArtifactError(SeqZooError, RuntimeError):
    """A model file or an artifact could not be written, read or verified."""


class SearchError(SeqZooError, RuntimeError):
    """A search cannot start, resume or give what was asked of it."""
