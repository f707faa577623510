"""Models out: an artifact that runs without Keras and without us, proved before it is there."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import keras

from keras_seqzoo import errors, files
from keras_seqzoo.artifacts.endpoints import decoder_of, endpoints
from keras_seqzoo.artifacts.verify import Parity, check_parity
from keras_seqzoo.diagnostics.functions import output_of, stateful_layers

FORMATS = ("tf_saved_model",)
PARITY = "parity.json"


def export(
    model: keras.Model,
    path: str | os.PathLike,
    *,
    format: str = "tf_saved_model",
    verify: bool = True,
    overwrite: bool = False,
    verbose: int = 1,
) -> Parity | None:
    """Writes a model as a SavedModel that TensorFlow alone can serve.

    Its `serve` endpoint, which is also the default signature, takes raw input of any batch size
    and, unless the model fixed it, any number of steps. An encoder-decoder, whose `serve` is given
    the target, decodes too: `encode(source)` gives a state, `step(before, **state)` what comes next
    and the state after, `generate_greedy(source, max_length)` and `generate_beam(source,
    max_length)` whole answers, the latter the five best; and `generate_text(sentences)`, with
    vocabularies inside (`with_names`), texts. With `verify`, the artifact is moved,
    loaded in a fresh process where keras and keras_seqzoo cannot be imported, and compared with
    the model on several batch sizes, lengths and paddings; only then does it appear at `path`,
    with the figures in `parity.json` inside it. Until that moment `path` is what it was.

    Shapes: the endpoint takes the model's inputs, in their order, such as
        `(batch, time, features)`, and gives its output, or the dict of its outputs.
    Masking: inside the artifact, as in the model.
    State: none; stateful models are refused, since an artifact would share one client's state with
        all. A causal model, as `stream` takes it, has the endpoints `initial_state(batch)`, which
        gives a dict of tensors, and `step(x, **state)`, which gives "output" and the state after;
        readings that are not finite leave the state as it was, and NaN comes out. Other models
        lack them: `hasattr(artifact, "step")`, and a row for each endpoint in the parity figures.

    Args:
        model: a `keras.Model` with one output, or a dict of them.
        path: folder to write.
        format: "tf_saved_model".
        verify: bool, whether to prove the artifact.
        overwrite: bool, whether to replace what is at `path`, at once.
        verbose: 0 is quiet; 1 prints the parity figures.

    Returns:
        The `Parity` report, or None with `verify=False`.

    Raises:
        ArgumentError: if the model or an option cannot be exported.
        ExistsError: if something is at `path` and `overwrite` is False.
        ArtifactError: if writing fails or the artifact answers otherwise than the model.

    Example:

    >>> import keras_seqzoo as zoo
    >>> model = zoo.get("simple_rnn_identity", features=3)
    >>> path = Path(tempfile.mkdtemp()) / "readings"
    >>> zoo.export(model, path, verify=False)
    >>> artifact = zoo.load(path)
    >>> artifact.serve(np.zeros((2, 5, 3), "float32")).shape
    TensorShape([2, 5, 3])
    """
    errors.check_choice("format", format, FORMATS)
    errors.check_bool(verify=verify, overwrite=overwrite)
    errors.check_choice("verbose", verbose, (0, 1, 2))
    _check_model(model)
    path = files.as_path("path", path)
    with files.replacing_folder(path, overwrite=overwrite) as folder:
        _write(model, folder)
        parity = None
        if verify:
            moved = folder.with_name("moved") / folder.name
            moved.parent.mkdir()
            shutil.move(folder, moved)
            parity = check_parity(model, moved)
            shutil.move(moved, folder)
            files.write_text(folder / PARITY, json.dumps(parity.to_dict(), indent=2) + "\n")
    if verbose and parity is not None:
        print(parity)
    return parity


def _write(model: keras.Model, folder: Path) -> None:
    import tensorflow as tf

    archive = keras.export.ExportArchive()
    archive.track(model)
    for name, endpoint in endpoints(model).items():
        archive.add_endpoint(name, endpoint.function, input_signature=endpoint.signature)
    try:
        archive.write_out(str(folder), verbose=False)
    except (OSError, tf.errors.OpError) as error:
        raise errors.ArtifactError(f"The artifact cannot be written: {error}") from error


def _check_model(model: Any) -> None:
    if not isinstance(model, keras.Model) or not getattr(model, "inputs", None):
        raise errors.ArgumentError(
            errors.sentence("model", "a built keras.Model with known inputs", type(model).__name__)
        )
    if keras.backend.backend() != "tensorflow":
        raise errors.ArgumentError(
            "`format='tf_saved_model'` must be written on the TensorFlow backend. Received: "
            f"{keras.backend.backend()}. Load the .keras file under KERAS_BACKEND=tensorflow."
        )
    if (
        decoder_of(model) is None
        and len(model.outputs) != 1
        and not isinstance(output_of(model), dict)
    ):
        raise errors.ArgumentError(
            "`model` must have one output, or a dict of outputs, so that each has a name. "
            f"Received: {len(model.outputs)} outputs without."
        )
    stateful = stateful_layers(model)
    if stateful:
        raise errors.ArgumentError(
            "`model` must not be stateful: an artifact would serve one client's state to all. "
            f"Received: {model.name!r} with stateful layers {', '.join(stateful)}. Rebuild it with "
            "stateful=False and set its weights: its artifact then has `initial_state` and `step`, "
            "as keras_seqzoo.stream does, with which each client keeps its own state."
        )
