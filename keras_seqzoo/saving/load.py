"""Safe loading of `.keras` files and SavedModel folders."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

# These register the classes that a model file may name.
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
    """Load a `.keras` file, or a SavedModel folder written by `export`, after checking it.

    A `.keras` file may come from an untrusted source. These checks run before anything is built:
    the archive has only the members that Keras writes; layers, functions and losses are Keras's,
    the zoo's, or registered by you; there is no lambda, no SavedModel inside and no path; the
    weights are stored in the file, and as many as the layers need. Keras then loads the file in
    safe mode. The checks bound the memory that loading takes. A model may still be slow, or return
    wrong results.

    A SavedModel is a program. It is refused if it has operations with access to files, the network
    or Python. Still, load only SavedModels that you made or trust.

    Args:
        path: a `.keras` file, or a folder with a `saved_model.pb`.
        custom_objects: mapping of name to class or function, in addition to registered ones.
        sha256: str of 64 hexadecimal digits, the digest of the file. None skips the check. Must be
            None for a folder.
        max_bytes: int, upper bound of the uncompressed size of the file or folder.
        max_config: int, upper bound of the size in bytes of the configuration, and of the
            vocabularies.
        max_size: int, upper bound of units, features and elements of a shape.
        max_layers: int, upper bound of the number of layers.

    Returns:
        A `keras.Model`, or the object that `tf.saved_model.load` returns, whose `serve` is the
        endpoint. `keras_seqzoo.leakage` accepts both. Keep a reference to the latter while you use
        `serve`, because TensorFlow frees its variables with it.

    Raises:
        ArtifactError: if `path` does not exist, is not a model, is damaged or refused.
        ArgumentError: if a limit is not a positive int, or `sha256` is not a digest.

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
    model.task = registry.model_task(model)
    return model


def _load_file(
    path: Path, custom_objects: Mapping[str, Any], sha256: str | None, limits: dict[str, int]
) -> keras.Model:
    _check_format(path)
    with open(path, "rb") as file:  # checks and loading read one file, even if the path changes
        _check_length(file, limits["max_bytes"])
        check_digest(file, sha256)
        text, weights = read_archive(
            file, max_bytes=limits["max_bytes"], max_config=limits["max_config"]
        )
        stored = count_weights(weights, max_bytes=limits["max_bytes"])
        del weights  # frees the memory, since Keras reads them again
        config, custom = read_config(
            text, custom_objects, max_size=limits["max_size"], max_layers=limits["max_layers"]
        )
        check_weights(config, stored, custom_objects, custom, max_bytes=limits["max_bytes"])
        file.seek(0)
        try:
            with warnings.catch_warnings():  # Keras warns and keeps initial values
                warnings.filterwarnings("error", message="Skipping nested container")
                return compat.load_keras_file(file, dict(custom_objects))
        except Exception as error:  # Keras raises many types for a damaged file
            raise ArtifactError(
                f"The model file '{path}' cannot be loaded: {_first_line(error)}"
            ) from error


def _check_format(path: Path) -> None:
    if not path.is_file():
        problem = "which is not a file" if os.path.lexists(path) else "which does not exist"
        raise ArtifactError(
            f"`path` must be a .keras file or a SavedModel folder. Received: path='{path}', "
            f"{problem}."
        )
    if path.suffix in (".h5", ".hdf5"):
        raise ArtifactError(
            f"`path` must be a .keras file. Received: path='{path}', in the older HDF5 "
            "format, which can run code. If you trust it, load it with keras.saving.load_model and "
            "save it with model.save('name.keras')."
        )
    if path.suffix != ".keras":
        raise ArtifactError(
            f"`path` must be a .keras file. Received: path='{path}', in another format. "
            "Other formats are not read, since a pickle can run code. Save models with "
            "model.save('name.keras')."
        )


def _check_length(file: Any, max_bytes: int) -> None:
    length = os.fstat(file.fileno()).st_size
    if length > max_bytes:
        raise ArtifactError(
            f"`path` must be a file of at most {max_bytes:,} bytes. Received: {length:,} bytes. "
            "If you trust the file, allow more with max_bytes=."
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
            argument_message(
                "sha256", "None for a folder", sha256, "Compare the digests of its files."
            )
        )
    check_saved_model(path, max_bytes=max_bytes)
    import tensorflow as tf

    try:
        return tf.saved_model.load(str(path))
    except Exception as error:  # TensorFlow raises many types for a damaged folder
        raise ArtifactError(
            f"The SavedModel '{path}' cannot be loaded: {_first_line(error)}"
        ) from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
