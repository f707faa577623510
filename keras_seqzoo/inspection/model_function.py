"""What can be measured, as one function: a Keras model, a loaded SavedModel, any callable."""

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

_LARGEST = 1e150  # its square, and sums of many, are finite in float64
BATCH_SIZE = 4096  # rows per call; a recurrent loop costs nearly the same for one row as for many


def as_function(model: Any) -> Callable[[np.ndarray], np.ndarray]:
    """A function from an input array to an output array, without state and without training.

    Raises:
        ArgumentError: if `model` is none of the three, has several inputs, or keeps state between
            calls.
    """
    if isinstance(model, keras.Model):
        _check_model(model)
        if not getattr(model, "inputs", None):  # subclassed: its shapes are not known
            return lambda x: as_output(model(x, training=False))
        return lambda x: as_output(model.predict_on_batch(as_input(model, model.inputs[0], x)))
    if hasattr(model, "signatures"):  # what `tf.saved_model.load` returns
        return _default_signature(model)
    if callable(model):
        return lambda x: as_output(model(x))
    raise ArgumentError(
        argument_message("model", "a Keras model, a loaded SavedModel or a callable", type(model))
    )


def at_layer(model: Any, layer: str | None) -> Any:
    """`model` as far as the layer of that name, or `model` itself if `layer` is None.

    Raises:
        ArgumentError: if the model is no Functional or Sequential one, or has no such layer, or
            calls it more than once.
    """
    if layer is None:
        return model
    if not isinstance(model, keras.Model) or not getattr(model, "inputs", None):
        raise ArgumentError(
            argument_message(
                "layer", "None unless `model` is a Functional or Sequential one", layer
            )
        )
    names = [one.name for one in model.layers]
    if not isinstance(layer, str) or layer not in names:
        raise ArgumentError(unknown_name_message("layer", layer, names))
    try:
        output = model.get_layer(layer).output
    except (AttributeError, ValueError) as error:
        raise ArgumentError(
            f"`layer` must be called once in {model.name!r}. Received: layer={layer!r}. Measure a "
            "model that ends in the call in question."
        ) from error
    inputs = model.inputs if len(model.inputs) > 1 else model.inputs[0]
    return keras.Model(inputs, output, name=model.name)


def run(function: Callable, x: np.ndarray, batch_size: int = BATCH_SIZE) -> np.ndarray:
    """`function(x)`, at most `batch_size` rows at a time."""
    check_positive(batch_size=batch_size)
    parts = [function(x[start : start + batch_size]) for start in range(0, len(x), batch_size)]
    for part, start in zip(parts, range(0, len(x), batch_size), strict=True):
        if part.ndim < 1 or len(part) != len(x[start : start + batch_size]):
            raise DataError(
                "The output must have one row for each row of the input. Received: output shape "
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
            "The output must be real numbers, and some. Received: shape "
            f"{y.shape}, dtype {y.dtype}."
        )
    return y


def read_rows(
    model: Any, x: Any, mask: Any, *, rows: int = 1, steps: int = 1
) -> tuple[np.ndarray, np.ndarray | None]:
    """`x` as an array `(batch, time, ...)` that can be run, and its mask as `find_mask` finds it.

    Raises:
        DataError: if it has too few axes, rows or steps, is not numeric, or is not finite in its
            real steps.
    """
    x = as_array("x", x)
    if x.ndim < 2 or x.dtype.kind not in "iufc":  # NumPy counts timedelta as a number
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
        as_input(model, model.inputs[0], x)
    mask = find_mask(model, x, mask)
    check_finite(x, mask)
    return x, mask


def find_mask(model: Any, x: np.ndarray, mask: Any = None) -> np.ndarray | None:
    """Real steps `(batch, time)`: `mask` if given, else what the model itself masks, else None.

    A Keras model's own mask is that of the layers that look at its input: `Masking`, `StepMask`,
    `Embedding(mask_zero=True)`.

    Raises:
        DataError: if a given mask is not bool of shape `(batch, time)`.
    """
    if mask is not None:
        return as_mask(mask, np.shape(x)[:2])
    if not isinstance(model, keras.Model) or not getattr(model, "inputs", None):
        return None
    found = input_mask(model, keras.ops.convert_to_tensor(x))
    return None if found is None else np.asarray(keras.ops.convert_to_numpy(found), bool)


def align(model, answer: np.ndarray, steps: int, output_step: int | None):
    """The output as `(batch, time, outputs)`, or as `(batch, outputs)` and True for one step.

    Raises:
        DataError: if the output is not aligned with the input's time and `output_step` is None.
    """
    y = answer.astype(np.float64)
    if output_step is not None:
        return step_of(y, output_step).reshape(len(y), -1), True
    if y.ndim == 1:
        return y[:, None], True
    if y.ndim == 2:
        last = y.shape[1] != steps or _gives_features(model)
        return (y, True) if last else (y[..., None], False)
    if y.shape[1] != steps:
        raise DataError(
            f"The output has {y.shape[1]} steps where the input has {steps}, so that they are not "
            "aligned in time. Say which output step to look at with output_step=."
        )
    return y.reshape(*y.shape[:2], -1), False


def step_of(y: np.ndarray, output_step: int | None) -> np.ndarray:
    """The output `(batch, time, ...)` at one step, or all of it if `output_step` is None."""
    if output_step is None:
        return y
    if not is_int(output_step) or y.ndim < 2 or not (-y.shape[1] <= output_step < y.shape[1]):
        raise ArgumentError(
            argument_message("output_step", f"a step of an output of shape {y.shape}", output_step)
        )
    return y[:, output_step]


def check_output(scored: np.ndarray) -> None:
    """Raises `DataError` unless every output that is looked at is finite, and can be squared."""
    if not np.isfinite(scored).all():
        raise DataError(
            f"The output must be finite. Received: {np.count_nonzero(~np.isfinite(scored))} values "
            "that are NaN or infinite. Has the model diverged?"
        )
    largest = float(np.abs(scored).max(initial=0))
    if largest > _LARGEST:
        raise DataError(
            f"The output must be at most {_LARGEST:g}, as it is squared. Received: {largest:.1e}. "
            "Scale it."
        )


def round_off(model: Any, dtype: Any = "float32") -> float:
    """Relative round-off of a model's coarsest layer, or of `dtype` where there are none."""
    layers = getattr(model, "layers", ())  # bfloat16 is no dtype of NumPy's
    used = [str(one.compute_dtype) for one in layers if one.weights] or [str(np.dtype(dtype))]
    return max(2.0**-7 if one == "bfloat16" else float(np.finfo(one).eps) for one in used)


def _gives_features(model: Any) -> bool:
    """Whether a model's rank-2 output, as long as the input, is known to be features, not time."""
    if isinstance(model, keras.Model) and getattr(model, "inputs", None):
        given, (_, width) = model.input_shape, model.output_shape
    elif hasattr(model, "signatures"):
        signature = model.signatures["serving_default"]
        (spec,) = signature.structured_input_signature[1].values()
        (answer,) = signature.structured_outputs.values()
        given, (_, width) = tuple(spec.shape), tuple(answer.shape)
    else:
        return False
    # A fixed number of steps is known as well: it is features then if the input has as many.
    return width is not None and (width != given[1] or width == given[-1])


def _check_model(model: keras.Model) -> None:
    if len(getattr(model, "inputs", None) or [None]) != 1:
        raise ArgumentError(
            f"`model` must have one input. Received: {model.name!r} with "
            f"{len(model.inputs)}. Wrap it in a function of the input in question."
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
            f"{', '.join(model.signatures) or 'none'}. Pass the function in question instead."
        )
    signature = model.signatures["serving_default"]
    specs = signature.structured_input_signature[1]
    if len(specs) != 1:
        raise ArgumentError(f"The SavedModel must take one input. Received: {', '.join(specs)}.")
    ((name, spec),) = specs.items()

    def serve(x: np.ndarray) -> np.ndarray:
        x = as_taken(x, tuple(spec.shape), spec.dtype.name)
        return as_output(signature(**{name: keras.ops.convert_to_tensor(x)}))

    return serve


def as_input(model: keras.Model, tensor: Any, x: np.ndarray, name: str = "x") -> np.ndarray:
    """`x` as an input of a model takes it.

    Raises:
        DataError: if the model takes another shape, or does not know its tokens.
    """
    taken = as_taken(x, tensor.shape, tensor.dtype, name)
    tokens = model_graph.known_tokens(model, tensor)
    if tokens is not None:
        as_tokens(name, x, tokens)
    return taken


def as_taken(
    x: np.ndarray, shape: tuple[int | None, ...], dtype: str, name: str = "x"
) -> np.ndarray:
    """`x` in the model's own dtype (rows are often float64, tokens int64), if its shape fits.

    Raises:
        DataError: if the model takes another shape.
    """
    fits = len(shape) == x.ndim and all(
        size is None or size == given for size, given in zip(shape[1:], x.shape[1:], strict=True)
    )
    if not fits:
        expected = ", ".join("any" if size is None else str(size) for size in shape[1:])
        raise DataError(
            f"`{name}` must have the shape that the model takes, (batch, {expected}). Received: "
            f"shape {x.shape}. Choose the features, or the window, that it was built for."
        )
    return x.astype(dtype, copy=False)


def as_output(output: Any) -> np.ndarray:
    """The one output of a model as an array.

    Raises:
        ArgumentError: if it gives several.
    """
    if isinstance(output, dict) and len(output) == 1:
        (output,) = output.values()
    if isinstance(output, (dict, list, tuple)):
        raise ArgumentError(
            f"`model` must have one output. Received: {type(output).__name__} of {len(output)}. "
            "Wrap it in a function that returns the output in question."
        )
    output = keras.ops.convert_to_numpy(output) if keras.ops.is_tensor(output) else output
    output = np.asarray(output)
    # NumPy knows no bfloat16, and cannot tell that it is a number.
    return output.astype(np.float32) if output.dtype.name == "bfloat16" else output
