"""Model files in, looked at before anything in them is built."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

# Registers the classes that a model file may name.
import keras_seqzoo.layers
import keras_seqzoo.optimizers  # noqa: F401
from keras_seqzoo import registry
from keras_seqzoo.errors import ArgumentError, ArtifactError
from keras_seqzoo.saving.archive import check_digest, read_archive
from keras_seqzoo.saving.config import read_config
from keras_seqzoo.saving.saved_model import check_saved_model
from keras_seqzoo.saving.weights import check_weights, count_weights
from keras_seqzoo.utils import compat, files
from keras_seqzoo.utils.argument_validation import argument_message, check_positive

MAX_BYTES, MAX_CONFIG, MAX_SIZE, MAX_LAYERS = 2**30, 2**24, 2**24, 2_000


def load(
    path: str | os.PathLike,
    *,
    custom_objects: Mapping[str, Any] | None = None,
    sha256: str | None = None,
    max_bytes: int = MAX_BYTES,
    max_config: int = MAX_CONFIG,
    max_size: int = MAX_SIZE,
    max_layers: int = MAX_LAYERS,
) -> Any:
    """Loads a `.keras` file, or a SavedModel folder that `export` wrote, after looking into it.

    A `.keras` file may be from anyone. Before anything is built, its members are those that Keras
    writes; its layers, functions and losses are Keras's own, the zoo's, or registered by you; it
    holds no lambda, no foreign SavedModel and no path; its weights lie in it and are as many as its
    layers have. Keras then loads it with its safe mode on, always. What the checks bound is memory
    while it is loaded; a model may still take long, or answer wrongly.

    A SavedModel is a program. One with operations that reach files, the network or Python is
    refused; load those that you made or trust all the same.

    Args:
        path: a `.keras` file, or a folder with a `saved_model.pb`.
        custom_objects: mapping of name to class or function, beside those that are registered.
        sha256: str of 64 hexadecimal digits, what the file must be; None for any. Of files alone.
        max_bytes: int, the most bytes that all of it may hold, unpacked.
        max_config: int, the most bytes of its configuration, and of its vocabularies.
        max_size: int, the largest number of units or features, and of elements of a shape.
        max_layers: int, how many layers it may have.

    Returns:
        A `keras.Model`, or what `tf.saved_model.load` gives, whose `serve` is the endpoint. Both
        go into `keras_seqzoo.leakage`. Keep a reference to the latter while you use `serve`:
        TensorFlow frees its variables with it.

    Raises:
        ArtifactError: if there is nothing, something else, a damaged file, or one that is refused.
        ArgumentError: if a limit or a digest is none.

    Example:

    >>> import keras_seqzoo as zoo
    >>> path = Path(tempfile.mkdtemp()) / "model.keras"
    >>> zoo.get("simple_rnn_identity").save(path)
    >>> zoo.load(path, max_bytes=10**6).name
    'simple_rnn_identity'
    """
    path = files.as_path("path", path)
    limits = {
        "max_bytes": max_bytes, "max_config": max_config, "max_size": max_size,
        "max_layers": max_layers,
    }  # fmt: skip
    check_positive(**limits)
    custom_objects = _checked_objects(custom_objects)
    try:
        if path.is_dir():
            return _load_saved_model(path, sha256, max_bytes)
        model = _load_file(path, custom_objects, sha256, limits)
    except (OSError, ValueError) as error:
        if isinstance(error, ArgumentError):
            raise
        raise ArtifactError(f"The model '{path}' cannot be read: {_first_line(error)}") from error
    if model.name in registry.list_models():  # set by `registry.get`, not stored in the file
        model.task = registry.get_entry(model.name).task
    return model


def _load_file(
    path: Path, custom_objects: Mapping[str, Any], sha256: str | None, limits: dict[str, int]
) -> keras.Model:
    _check_kind(path)
    with open(path, "rb") as file:  # what is checked is what is loaded, whatever the path becomes
        _check_length(file, limits["max_bytes"])
        check_digest(file, sha256)
        text, weights, _ = read_archive(
            file, max_bytes=limits["max_bytes"], max_config=limits["max_config"]
        )
        stored = count_weights(weights, max_bytes=limits["max_bytes"])
        del weights  # Keras reads them again
        config, custom = read_config(
            text, custom_objects, max_size=limits["max_size"], max_layers=limits["max_layers"]
        )
        check_weights(config, stored, custom_objects, custom, max_bytes=limits["max_bytes"])
        file.seek(0)
        try:
            with warnings.catch_warnings():  # Keras would go on with weights that it made up
                warnings.filterwarnings("error", message="Skipping nested container")
                return compat.load_keras_file(file, dict(custom_objects))
        except Exception as error:  # what is damaged fails in as many ways as it has bytes
            raise ArtifactError(
                f"The model file '{path}' cannot be loaded: {_first_line(error)}"
            ) from error


def _check_kind(path: Path) -> None:
    if not path.is_file():
        what = "which is no file" if os.path.lexists(path) else "where nothing is"
        raise ArtifactError(
            f"`path` must be a .keras file or a SavedModel folder. Received: path='{path}', {what}."
        )
    if path.suffix in (".h5", ".hdf5"):
        raise ArtifactError(
            f"`path` must be a .keras file. Received: path='{path}', of the older format, which "
            "can run code. If you trust it, load it with keras.saving.load_model and save it with "
            "model.save('name.keras')."
        )
    if path.suffix != ".keras":
        raise ArtifactError(
            f"`path` must be a .keras file. Received: path='{path}', of another kind, which is not "
            "read, as a pickle can run code. Save models with model.save('name.keras')."
        )


def _check_length(file: Any, max_bytes: int) -> None:
    length = os.fstat(file.fileno()).st_size
    if length > max_bytes:
        raise ArtifactError(
            f"`path` must be a file of at most {max_bytes:,} bytes. Received: one of {length:,}. "
            "If you trust it, allow more with max_bytes=."
        )


def _checked_objects(custom_objects: Any) -> dict[str, Any]:
    if custom_objects is None:
        return {}
    if not isinstance(custom_objects, Mapping) or not all(
        isinstance(name, str) and callable(value) for name, value in custom_objects.items()
    ):
        raise ArgumentError(
            argument_message(
                "custom_objects", "a mapping of name to class or function", custom_objects
            )
        )
    return dict(custom_objects)


def _load_saved_model(path: Path, sha256: str | None, max_bytes: int) -> Any:
    if not (path / "saved_model.pb").is_file():
        raise ArtifactError(
            f"`path` must be a .keras file or a SavedModel folder. Received: path='{path}', a "
            "folder without saved_model.pb."
        )
    if sha256 is not None:
        raise ArgumentError(
            argument_message("sha256", "None for a folder", sha256, "Compare its files one by one.")
        )
    check_saved_model(path, max_bytes=max_bytes)
    import tensorflow as tf

    try:
        return tf.saved_model.load(str(path))
    except Exception as error:  # as above
        raise ArtifactError(
            f"The SavedModel '{path}' cannot be loaded: {_first_line(error)}"
        ) from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
