"""Model files in."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import keras

# Registers the classes that a model file may name.
import keras_seqzoo.layers
import keras_seqzoo.training.optimizer  # noqa: F401
from keras_seqzoo import files
from keras_seqzoo.errors import ArtifactError


def load(path: str | os.PathLike) -> Any:
    """Loads a `.keras` file, or a SavedModel folder that `export` wrote.

    Loading a SavedModel runs a program: load those you made or trust. A `.keras` file is loaded
    with Keras's safe mode on, always.

    Args:
        path: a `.keras` file, or a folder with a `saved_model.pb`.

    Returns:
        A `keras.Model`, or what `tf.saved_model.load` gives, whose `serve` is the endpoint. Both
        go into `keras_seqzoo.leakage`. Keep a reference to the latter while you use `serve`:
        TensorFlow frees its variables with it.

    Raises:
        ArtifactError: if there is nothing, something else, or a damaged file.

    Example:

    >>> import keras_seqzoo as zoo
    >>> path = Path(tempfile.mkdtemp()) / "model.keras"
    >>> zoo.get("simple_rnn_identity").save(path)
    >>> zoo.load(path).name
    'simple_rnn_identity'
    """
    path = files.as_path("path", path)
    if (path / "saved_model.pb").is_file():
        return _load_saved_model(path)
    if not path.is_file():
        raise ArtifactError(
            f"`path` must be a .keras file or a SavedModel folder. Received: path='{path}', "
            f"{'a folder without saved_model.pb' if path.is_dir() else 'where nothing is'}."
        )
    if path.suffix != ".keras" or not zipfile.is_zipfile(path):
        raise ArtifactError(
            f"`path` must be a whole .keras file. Received: path='{path}', "
            f"{'which is damaged' if path.suffix == '.keras' else 'of another kind'}. Save models "
            "with model.save('name.keras')."
        )
    try:
        return keras.saving.load_model(path, safe_mode=True)
    except Exception as error:  # a damaged archive fails in as many ways as it has bytes
        cause = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ArtifactError(f"The model file '{path}' cannot be loaded: {cause}") from error


def _load_saved_model(path: Path) -> Any:
    import tensorflow as tf

    try:
        return tf.saved_model.load(str(path))
    except (OSError, ValueError, tf.errors.OpError) as error:
        raise ArtifactError(f"The SavedModel '{path}' cannot be loaded: {error}") from error
