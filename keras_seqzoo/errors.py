"""Exceptions of keras_seqzoo, all subclasses of `SeqZooError`."""

from __future__ import annotations


class SeqZooError(Exception):
    """Base class of all exceptions of keras_seqzoo."""

    def __str__(self) -> str:  # `KeyError` prints the repr of its message
        return str(self.args[0]) if self.args else ""


class ArgumentError(SeqZooError, ValueError):
    """An argument has an invalid value or type."""


class UnknownArgumentError(SeqZooError, TypeError):
    """A constructor does not accept an argument of that name."""


class UnknownNameError(SeqZooError, KeyError):
    """No entry of that name is registered."""


class RegistrationError(SeqZooError, ValueError):
    """An entry is malformed, or its name is already registered."""


class DataError(SeqZooError, ValueError):
    """Input data are invalid: wrong rank, not finite, empty, too short or unreadable."""


class ExistsError(SeqZooError, FileExistsError):
    """The path exists already and would be overwritten."""


class ArtifactError(SeqZooError, RuntimeError):
    """A model file or an artifact cannot be written, read or verified."""


class SearchError(SeqZooError, RuntimeError):
    """A search cannot start, resume or return the requested result."""
