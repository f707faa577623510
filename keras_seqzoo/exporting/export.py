"""Models out: an artifact that runs without Keras and without us, proved before it is there."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

from keras_seqzoo import errors
from keras_seqzoo.exporting.endpoints import Endpoint, endpoints
from keras_seqzoo.exporting.formats import FORMATS, Format
from keras_seqzoo.exporting.model_card import CARD, model_card
from keras_seqzoo.exporting.tracing import in_full_precision, without_cudnn
from keras_seqzoo.exporting.verification import Parity, check_parity, hashes
from keras_seqzoo.inspection.model_graph import decoder_of, output_of, stateful_layers
from keras_seqzoo.utils import argument_validation, files

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
    """Writes a model as an artifact that a runtime alone can serve, without keras or this package.

    What it can be asked are its endpoints. `serve` takes raw input of any batch size and, unless
    the model fixed it, any number of steps. An encoder-decoder, whose `serve` is given
    the target, decodes too: `encode(source)` gives a state, `step(before, **state)` what comes next
    and the state after, `generate_greedy(source, max_length)` and `generate_beam(source,
    max_length)` whole answers, the latter the five best; and `generate_text(sentences)`, with
    vocabularies inside (`end_to_end`), texts.

    The formats, and who serves them:

    - "tf_saved_model": TensorFlow. `serve` is also the default signature.
    - "onnx", a `serve.onnx` and one more file for each other endpoint: onnxruntime.
    - "litert", `.tflite` files: the LiteRT interpreter, with its built-in operations alone. Rows
      come one at a time.
    - "openvino", `.xml` files with a `.bin` each: OpenVINO.
    - "torch", `.pt2` files of `torch.export`: PyTorch. Written on that backend, of models built
      with `time=`, for that many steps; a `step` needs none. Rows come one at a time. Without
      `generate_*`.

    All but the first hold numbers only, and compute in the precision of the weights; an output that
    would be called as an input is (the state, of a step) is "next_" and that name. What a format
    cannot hold of a model is left out and said in the report; without a `serve`, nothing is
    written.

    With `verify`, the artifact is moved, loaded in a fresh process where keras and keras_seqzoo
    cannot be imported, and compared with the model on several batch sizes, lengths and paddings;
    only then does it appear at `path`, with the figures, versions and hashes of its files in
    `parity.json`, and all that for people to read in `model_card.md`. Until that moment `path` is
    what it was.

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
        format: "tf_saved_model", "onnx", "litert", "openvino" or "torch".
        verify: bool, whether to prove the artifact.
        overwrite: bool, whether to replace what is at `path`, at once.
        verbose: 0 is quiet; 1 prints the parity figures.

    Returns:
        The `Parity` report, or None with `verify=False`.

    Raises:
        ArgumentError: if the model or an option cannot be exported, or the packages of the format
            are not installed.
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
    argument_validation.check_choice("format", format, FORMATS)
    argument_validation.check_bool(verify=verify, overwrite=overwrite)
    argument_validation.check_verbose(verbose)
    chosen = FORMATS[format]
    _check_model(model)
    path = _folder(path, chosen)
    chosen.check()
    with without_cudnn(model):
        parity = _export(model, path, chosen, verify=verify, overwrite=overwrite)
    if verbose and parity is not None:
        print(parity)
    return parity


def _export(
    model: keras.Model, path: Path, chosen: Format, *, verify: bool, overwrite: bool
) -> Parity | None:
    known, left_out = _fitting(model, chosen)
    with files.replacing_folder(path, overwrite=overwrite) as folder:
        _write(model, known, folder, chosen)
        written = hashes(folder)
        parity = _prove(model, folder, chosen, known, left_out, written) if verify else None
        card = model_card(model, chosen, known, left_out, written, parity)
        files.write_text(folder / CARD, card)
    return parity


def _folder(path: str | os.PathLike, chosen: Format) -> Path:
    path = files.as_path("path", path)
    if chosen.ending and path.suffix == chosen.ending:
        raise errors.ArgumentError(
            f"`path` must be a folder, in which there will be a serve{chosen.ending}. "
            f"Received: path='{path}'. Leave out the {chosen.ending}."
        )
    return path


def _fitting(model: keras.Model, chosen: Format) -> tuple[dict[str, Endpoint], dict[str, str]]:
    """The endpoints that a format can hold, and why it cannot hold the others."""
    known = endpoints(model)
    left_out = chosen.left_out(known)
    if "serve" in left_out:
        raise errors.ArgumentError(
            f"`model` must be one that format={chosen.name!r} can hold. Received: {model.name!r}, "
            f"but {left_out['serve']}."
        )
    return {name: one for name, one in known.items() if name not in left_out}, left_out


def _prove(model, folder: Path, chosen: Format, known, left_out, written) -> Parity:
    """Compares the artifact with the model, elsewhere, and writes the report into it."""
    moved = folder.with_name("moved") / folder.name
    moved.parent.mkdir()
    shutil.move(folder, moved)
    parity = check_parity(model, moved, chosen, known)
    shutil.move(moved, folder)
    parity = dataclasses.replace(parity, left_out=left_out, files=written)
    files.write_text(folder / PARITY, json.dumps(parity.to_dict(), indent=2) + "\n")
    return parity


def _write(model: keras.Model, known: Mapping[str, Endpoint], folder: Path, chosen: Format) -> None:
    precision = contextlib.nullcontext() if chosen.low_precision else in_full_precision(model)
    try:
        with precision:
            asked = endpoints(model)  # again: states have the precision of the layers
            chosen.write(model, {name: asked[name] for name in known}, folder)
    except Exception as error:  # converters fail in as many ways as there are operations
        cause = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise errors.ArtifactError(
            f"The artifact cannot be written as {chosen.name!r}: {cause}. Nothing was written."
        ) from error


def _check_model(model: Any) -> None:
    if not isinstance(model, keras.Model) or not getattr(model, "inputs", None):
        raise errors.ArgumentError(
            argument_validation.argument_message(
                "model", "a built keras.Model with known inputs", type(model).__name__
            )
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
