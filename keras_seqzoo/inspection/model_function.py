"""Keras models, loaded SavedModels and callables as functions from array to array."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_seqzoo.errors import ArgumentError, DataError
from keras_seqzoo.inspection import model_graph
from keras_seqzoo.layers.masking import input_mask
from keras_seqzoo.utils.argument_validation import (
    argument_message,
    check_positive,
    is_int,
    unknown_name_message,
)
from keras_seqzoo.utils.array_validation import as_array, as_mask, as_tokens, check_finite

_MAX_OUTPUT = 1e150  # its square, and a sum of many, is finite in float64
BATCH_SIZE = 4096  # rows per call; a recurrent loop takes nearly as long for one row as for many


def as_function(model: Any) -> Callable[[np.ndarray], np.ndarray]:
    """`model` as a stateless function from input array to output array, in inference mode.

    Raises:
        ArgumentError: if `model` is none of the three, has several inputs, or is stateful.
    """
    if isinstance(model, keras.Model):
        _check_model(model)
        if not getattr(model, "inputs", None):  # subclassed: its shapes are unknown
            return lambda x: as_output_array(model(x, training=False))
        return lambda x: as_output_array(
            model.predict_on_batch(as_model_input(model, model.inputs[0], x))
        )
    if hasattr(model, "signatures"):  # what `tf.saved_model.load` returns
        return _default_signature(model)
    if callable(model):
        return lambda x: as_output_array(model(x))
    raise ArgumentError(
        argument_message("model", "a Keras model, a loaded SavedModel or a callable", type(model))
    )


def truncate_at_layer(model: Any, layer: str | None) -> Any:
    """The part of `model` up to the layer of that name, or `model` itself if `layer` is None.

    Raises:
        ArgumentError: if the model is not Functional or Sequential, has no such layer, or calls it
            more than once.
    """
    if layer is None:
        return model
    if not isinstance(model, keras.Model) or not getattr(model, "inputs", None):
        raise ArgumentError(
            argument_message(
                "layer", "None unless `model` is a Functional or Sequential one", layer
            )
        )
    names = [child.name for child in model.layers]
    if not isinstance(layer, str) or layer not in names:
        raise ArgumentError(unknown_name_message("layer", layer, names))
    try:
        output = model.get_layer(layer).output
    except (AttributeError, ValueError) as error:
        raise ArgumentError(
            f"`layer` must be called once in {model.name!r}. Received: layer={layer!r}. Measure a "
            "model whose output is the intended call."
        ) from error
    inputs = model.inputs if len(model.inputs) > 1 else model.inputs[0]
    return keras.Model(inputs, output, name=model.name)


def predict_in_batches(
    function: Callable, x: np.ndarray, batch_size: int = BATCH_SIZE
) -> np.ndarray:
    """`function(x)` in batches of at most `batch_size` rows.

    Raises:
        DataError: if the output is not numeric, or its shape differs between batches.
    """
    check_positive(batch_size=batch_size)
    parts = [function(x[start : start + batch_size]) for start in range(0, len(x), batch_size)]
    for part, start in zip(parts, range(0, len(x), batch_size), strict=True):
        if part.ndim < 1 or len(part) != len(x[start : start + batch_size]):
            raise DataError(
                "The output must have one row per input row. Received: output shape "
                f"{part.shape} for input shape {x[start : start + batch_size].shape}."
            )
    if len({part.shape[1:] for part in parts}) > 1:
        raise DataError(
            "The output must have the same shape for every batch. Received: "
            f"{', '.join(sorted({str(part.shape) for part in parts}))}."
        )
    y = parts[0] if len(parts) == 1 else np.concatenate(parts)
    if y.dtype.kind not in "biuf" or 0 in y.shape:
        raise DataError(
            "The output must be a non-empty array of real numbers. Received: shape "
            f"{y.shape}, dtype {y.dtype}."
        )
    return y


def prepare_inputs(
    model: Any, x: Any, mask: Any, *, rows: int = 1, steps: int = 1
) -> tuple[np.ndarray, np.ndarray | None]:
    """`x` as a valid input array `(batch, time, ...)`, and its mask by `resolve_mask`.

    Raises:
        DataError: if `x` has too few axes, rows or steps, is not numeric, or is not finite in its
            real steps.
    """
    x = as_array("x", x)
    if x.ndim < 2 or x.dtype.kind not in "iufc":  # timedelta is a NumPy number, too
        raise DataError(
            "`x` must be numeric of shape (batch, time, features), or (batch, time) for tokens. "
            f"Received: shape {x.shape}, dtype {x.dtype}."
        )
    if np.iscomplexobj(x) or len(x) < rows or x.shape[1] < steps or 0 in x.shape:
        raise DataError(
            f"`x` must be real, with at least {rows} rows and {steps} steps. Received: shape "
            f"{x.shape}, dtype {x.dtype}."
        )
    if len(getattr(model, "inputs", None) or ()) == 1 and isinstance(model, keras.Model):
        as_model_input(model, model.inputs[0], x)
    mask = resolve_mask(model, x, mask)
    check_finite(x, mask)
    return x, mask


def resolve_mask(model: Any, x: np.ndarray, mask: Any = None) -> np.ndarray | None:
    """The mask of real steps `(batch, time)`: `mask` if given, else the model's own, else None.

    A Keras model's own mask comes from the layers behind its input: `Masking`, `StepMask`,
    `Embedding(mask_zero=True)`.

    Raises:
        DataError: if `mask` is not bool of shape `(batch, time)`.
    """
    if mask is not None:
        return as_mask(mask, np.shape(x)[:2])
    if not isinstance(model, keras.Model) or not getattr(model, "inputs", None):
        return None
    own_mask = input_mask(model, keras.ops.convert_to_tensor(x))
    return None if own_mask is None else np.asarray(keras.ops.convert_to_numpy(own_mask), bool)


def align_output(
    model: Any, output: np.ndarray, steps: int, output_step: int | None
) -> tuple[np.ndarray, bool]:
    """The output in float64, and whether it is a single step.

    Shapes: the result is `(batch, time, outputs)`, or `(batch, outputs)` for a single step.

    Args:
        model: the model or function that the output is from.
        output: array `(batch, ...)`.
        steps: int, the length of the input.
        output_step: int, the step to select from the output, or None for all steps.

    Raises:
        DataError: if the output has another length than the input and `output_step` is None.
    """
    y = output.astype(np.float64)
    if output_step is not None:
        return select_step(y, output_step).reshape(len(y), -1), True
    if y.ndim == 1:
        return y[:, None], True
    if y.ndim == 2:
        single_step = y.shape[1] != steps or _has_feature_axis(model)
        return (y, True) if single_step else (y[..., None], False)
    if y.shape[1] != steps:
        raise DataError(
            f"The output must have as many steps as the input, {steps}. Received: {y.shape[1]} "
            "steps, which are not aligned in time. Choose an output step with output_step=."
        )
    return y.reshape(*y.shape[:2], -1), False


def select_step(y: np.ndarray, output_step: int | None) -> np.ndarray:
    """The output `(batch, time, ...)` at one step, or all of it if `output_step` is None."""
    if output_step is None:
        return y
    if not is_int(output_step) or y.ndim < 2 or not (-y.shape[1] <= output_step < y.shape[1]):
        raise ArgumentError(
            argument_message("output_step", f"a step of an output of shape {y.shape}", output_step)
        )
    return y[:, output_step]


def check_output(output: np.ndarray) -> None:
    """Raises `DataError` unless every output is finite and can be squared."""
    if not np.isfinite(output).all():
        raise DataError(
            f"The output must be finite. Received: {np.count_nonzero(~np.isfinite(output))} values "
            "that are NaN or infinite. Has the model diverged?"
        )
    largest = float(np.abs(output).max(initial=0))
    if largest > _MAX_OUTPUT:
        raise DataError(
            f"The output must be at most {_MAX_OUTPUT:g}, because it is squared. Received: "
            f"{largest:.1e}. Scale the output."
        )


def machine_epsilon(model: Any, dtype: Any = "float32") -> float:
    """Machine epsilon of the least precise layer of a model, or of `dtype` without layers."""
    layers = getattr(model, "layers", ())
    dtypes = [str(layer.compute_dtype) for layer in layers if layer.weights]
    dtypes = dtypes or [str(np.dtype(dtype))]
    # NumPy has no bfloat16.
    return max(2.0**-7 if name == "bfloat16" else float(np.finfo(name).eps) for name in dtypes)


def _has_feature_axis(model: Any) -> bool:
    """Whether the last axis of a model's rank-2 output is known to be features, not time."""
    if isinstance(model, keras.Model) and getattr(model, "inputs", None):
        input_shape, (_, size) = model.input_shape, model.output_shape
    elif hasattr(model, "signatures"):
        signature = model.signatures["serving_default"]
        (spec,) = signature.structured_input_signature[1].values()
        (output,) = signature.structured_outputs.values()
        input_shape, (_, size) = tuple(spec.shape), tuple(output.shape)
    else:
        return False
    # A fixed size may also be a fixed number of steps, unless the input has as many features.
    return size is not None and (size != input_shape[1] or size == input_shape[-1])


def _check_model(model: keras.Model) -> None:
    if len(getattr(model, "inputs", None) or [None]) != 1:
        raise ArgumentError(
            f"`model` must have one input. Received: {model.name!r} with "
            f"{len(model.inputs)}. Wrap it in a function of one input."
        )
    stateful = model_graph.stateful_layers(model)
    if stateful:
        raise ArgumentError(
            f"`model` must not keep state between calls. Received: {model.name!r} with stateful "
            f"layers {', '.join(stateful)}. Rebuild it with stateful=False and set its weights."
        )


def _default_signature(model: Any) -> Callable:
    if "serving_default" not in model.signatures:
        raise ArgumentError(
            "The SavedModel must have a default signature. Received: one with "
            f"{', '.join(model.signatures) or 'none'}. Pass one of its functions instead."
        )
    signature = model.signatures["serving_default"]
    specs = signature.structured_input_signature[1]
    if len(specs) != 1:
        raise ArgumentError(f"The SavedModel must take one input. Received: {', '.join(specs)}.")
    ((name, spec),) = specs.items()

    def serve(x: np.ndarray) -> np.ndarray:
        x = cast_to_spec(x, tuple(spec.shape), spec.dtype.name)
        return as_output_array(signature(**{name: keras.ops.convert_to_tensor(x)}))

    return serve


def as_model_input(model: keras.Model, tensor: Any, x: np.ndarray, name: str = "x") -> np.ndarray:
    """`x` in the dtype of a model's input, checked against its shape and vocabulary.

    Raises:
        DataError: if the model expects another shape, or a token id is not in its vocabulary.
    """
    array = cast_to_spec(x, tensor.shape, tensor.dtype, name)
    vocabulary_size = model_graph.input_vocabulary_size(model, tensor)
    if vocabulary_size is not None:
        as_tokens(name, x, vocabulary_size)
    return array


def cast_to_spec(
    x: np.ndarray, shape: tuple[int | None, ...], dtype: str, name: str = "x"
) -> np.ndarray:
    """`x` in the dtype of an input spec, checked against its shape.

    Raises:
        DataError: if the spec has another shape.
    """
    matches = len(shape) == x.ndim and all(
        expected is None or expected == size
        for expected, size in zip(shape[1:], x.shape[1:], strict=True)
    )
    if not matches:
        expected = ", ".join("any" if size is None else str(size) for size in shape[1:])
        raise DataError(
            f"`{name}` must have the shape that the model expects, (batch, {expected}). Received: "
            f"shape {x.shape}. Use the features and the sequence length that it was built for."
        )
    return x.astype(dtype, copy=False)


def as_output_array(output: Any) -> np.ndarray:
    """The single output of a model as an array.

    Raises:
        ArgumentError: if the model has several outputs.
    """
    if isinstance(output, dict) and len(output) == 1:
        (output,) = output.values()
    if isinstance(output, (dict, list, tuple)):
        raise ArgumentError(
            f"`model` must have one output. Received: {type(output).__name__} of {len(output)}. "
            "Wrap it in a function that returns one output."
        )
    output = keras.ops.convert_to_numpy(output) if keras.ops.is_tensor(output) else output
    output = np.asarray(output)
    # NumPy does not recognize bfloat16 as a numeric dtype.
    return output.astype(np.float32) if output.dtype.name == "bfloat16" else output
