"""Export of models as verified artifacts, which run without Keras and this package."""

from __future__ import annotations

import os
from pathlib import Path

import keras

from keras_seqzoo import errors
from keras_seqzoo.exporting.formats import FORMATS, write_artifact
from keras_seqzoo.exporting.model_card import write_model_card
from keras_seqzoo.exporting.plan import ExportPlan
from keras_seqzoo.exporting.tracing import without_cudnn
from keras_seqzoo.exporting.verification import Parity, verify_artifact
from keras_seqzoo.utils import argument_validation, files


def export(
    model: keras.Model,
    path: str | os.PathLike,
    *,
    format: str = "tf_saved_model",
    verify: bool = True,
    overwrite: bool = False,
    verbose: int = 1,
) -> Parity | None:
    """Writes a model as an artifact that its runtime serves without Keras or this package.

    The callables of an artifact are its endpoints. Every artifact has `serve`, which takes raw
    inputs of any batch size and, unless the model fixes it, of any number of steps. Others depend
    on the model:

    - A causal model, as `stream` takes it, has `initial_state(batch)`, which returns a dict of
      tensors, and `step(x, **state)`, which returns "output" and the state after the step. A
      reading that is not finite leaves the state as it was, and its output is NaN.
    - An encoder-decoder, whose `serve` takes the target too, has `encode(source)`, which returns a
      state, `step(previous, **state)`, which returns the "prediction" of the next token or reading
      and the state after it, `generate_greedy(source, max_length)`, and, of tokens,
      `generate_beam(source, max_length)`, which returns the five best sequences.
    - An end-to-end encoder-decoder (`end_to_end`) also has `generate_text(sentences)`.

    The formats and their runtimes:

    - "tf_saved_model": TensorFlow. `serve` is also the default signature.
    - "onnx", a file `serve.onnx` and one for each other endpoint: onnxruntime.
    - "litert", `.tflite` files: the LiteRT interpreter, with its built-in operations alone. The
      batch size is 1.
    - "openvino", `.xml` files with a `.bin` file each: OpenVINO.
    - "torch", `.pt2` files of `torch.export`: PyTorch. Written on that backend, of models built
      with `time=`, for that number of steps; a `step` needs no `time=`. The batch size is 1. There
      is no `generate_*`.

    All formats but the first support numbers only, and compute in the precision of the weights.
    There an output that would have the name of an input, such as the state of a step, has the
    prefix "next_". Endpoints that a format does not support are left out and listed in the report;
    without a `serve`, nothing is written.

    With `verify`, the artifact is moved, loaded in a fresh process where keras and keras_seqzoo
    cannot be imported, and compared with the model on several batch sizes, lengths and paddings.
    Only then does it appear at `path`, with the differences, versions and hashes of its files in
    `parity.json`, and the same as text in `model_card.md`. Until then `path` is left as it was.

    Shapes: `serve` takes the model's inputs in their order, such as `(batch, time, features)`, and
        returns its output, or the dict of its outputs.
    Masking: inside the artifact, as in the model.
    State: none kept in the artifact. Stateful models are refused, since an artifact would share
        one client's state with all; the client passes the state to `step`.

    Args:
        model: a `keras.Model` with one output, or a dict of outputs.
        path: folder to write.
        format: "tf_saved_model", "onnx", "litert", "openvino" or "torch".
        verify: bool, whether to compare the artifact with the model.
        overwrite: bool, whether to replace what is at `path`, in one step.
        verbose: 0 is quiet; 1 prints the `Parity` report.

    Returns:
        The `Parity` report, or None with `verify=False`.

    Raises:
        ArgumentError: if the model or an option cannot be exported, or the packages of the format
            are not installed.
        ExistsError: if something is at `path` and `overwrite` is False.
        ArtifactError: if writing fails, or the artifact's outputs differ from the model's.

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
    artifact_format = FORMATS[format]
    path = _artifact_folder(path, artifact_format.suffix)
    artifact_format.check_installed()
    plan = artifact_format.select(ExportPlan.for_model(model))
    with without_cudnn(model), files.replacing_folder(path, overwrite=overwrite) as folder:
        write_artifact(plan, artifact_format, folder)
        parity = verify_artifact(plan, artifact_format, folder) if verify else None
        write_model_card(plan, artifact_format, folder, parity)
    if verbose and parity is not None:
        print(parity)
    return parity


def _artifact_folder(path: str | os.PathLike, suffix: str) -> Path:
    path = files.as_path("path", path)
    if suffix and path.suffix == suffix:
        raise errors.ArgumentError(
            f"`path` must be a folder, in which there will be a serve{suffix}. "
            f"Received: path='{path}'. Leave out the {suffix}."
        )
    return path
