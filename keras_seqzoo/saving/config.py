"""Checks of a model's configuration before anything is built from it.

It may name layers, models, operations, initializers, regularizers, constraints, losses, metrics,
optimizers and functions of Keras, and classes and functions that are registered in this process.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import keras

from keras_seqzoo.errors import ArtifactError
from keras_seqzoo.utils.argument_validation import is_int

MAX_DEPTH, MAX_VALUES = 200, 2**22
# Layers that run code from the file: bytecode, a SavedModel, a module of another library.
UNSAFE_LAYERS = ("FlaxLayer", "JaxLayer", "Lambda", "TFSMLayer", "TorchModuleWrapper")
_BASES = (
    keras.Operation,  # layers and models are operations
    keras.initializers.Initializer,
    keras.regularizers.Regularizer,
    keras.constraints.Constraint,
    keras.losses.Loss,
    keras.metrics.Metric,
    keras.optimizers.Optimizer,
    keras.optimizers.schedules.LearningRateSchedule,
    keras.dtype_policies.DTypePolicy,
    keras.quantizers.QuantizationConfig,
    keras.quantizers.Quantizer,
    keras.random.SeedGenerator,
)
_FUNCTIONS = (
    "activations", "constraints", "initializers", "losses", "metrics", "ops", "regularizers",
)  # fmt: skip
_EXCLUDED_FUNCTIONS = ("custom_gradient", "deserialize", "get", "serialize")
_DTYPES = (
    "bfloat16", "bool", "string",
    *(f"float{bits}" for bits in (16, 32, 64)),
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
)  # fmt: skip
_DATA_TYPES = (
    "__bytes__",
    "__ellipsis__",
    "__keras_tensor__",
    "__numpy__",
    "__slice__",
    "__tensor__",
)
# Arguments whose strings are paths or addresses. Strings in other arguments are names.
_PATH_ARGUMENTS = ("file", "filename", "filepath", "fname", "origin", "path", "url", "vocabulary")
# Arguments whose numbers are values rather than sizes.
_VALUE_ARGUMENTS = (
    "compile_config", "fill_value", "mask_token", "mask_value", "oov_token", "salt", "seed",
    "shared_object_id", "value", "vocabulary",
)  # fmt: skip


def read_config(
    text: bytes, custom_objects: Mapping[str, Any], *, max_size: int, max_layers: int
) -> tuple[dict[str, Any], list[type]]:
    """Parse and check the configuration of a model.

    Args:
        text: bytes of JSON.
        custom_objects: mapping of name to class or function, in addition to registered ones.
        max_size: int, upper bound of units, features and elements of a shape.
        max_layers: int, upper bound of the number of layers.

    Returns:
        The configuration, and a list of the classes that are neither Keras's nor this package's.

    Raises:
        ArtifactError: if it is not a configuration, names what is not allowed, or is too large.
    """
    config = _parse(text)
    custom: list[type] = []
    layers = 0
    for value, key, is_size in walk_config(config):
        if isinstance(value, dict):
            _check_nodes(value.get("inbound_nodes"))
        if isinstance(value, dict) and "class_name" in value:
            cls = _check_object(value, custom_objects, max_size)
            if isinstance(cls, type):
                layers += issubclass(cls, keras.Operation)
                if not cls.__module__.startswith(("keras.", "keras_seqzoo.")):
                    custom.append(cls)
        elif isinstance(value, str):
            if key in _PATH_ARGUMENTS and value:
                raise config_error(
                    f"a layer that reads a file: {key}={value[:80]!r}",
                    "Pass the vocabulary to the layer as a list before the model is saved.",
                )
        elif is_size and _size(value, key) > max_size:
            raise config_error(
                f"{key}={str(value)[:80]}; sizes up to {max_size:,} are allowed",
                "If you trust the file, allow more with max_size=.",
            )
        if layers > max_layers:
            raise config_error(
                f"more than {max_layers:,} layers",
                "If you trust the file, allow more with max_layers=.",
            )
    return config, custom


def config_error(received: str, hint: str = "Do not use this file.") -> ArtifactError:
    """Return the error for a model file with a configuration that is not allowed."""
    return ArtifactError(
        "`path` must be a model of layers of Keras and of the zoo, and of classes that are "
        f"registered or given as custom_objects=. Received: {received}. {hint}"
    )


def _parse(text: bytes) -> dict[str, Any]:
    if sum(map(text.count, (b",", b"[", b"{"))) > MAX_VALUES:
        raise config_error(f"a configuration of more than {MAX_VALUES:,} values")
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise config_error(
            f"a configuration that is not JSON ({error})", "Get the file again."
        ) from None
    if not isinstance(config, dict) or not {"class_name", "config", "module"} <= set(config):
        raise config_error(
            "a configuration that is not a model's", "Save it with model.save('name.keras')."
        )
    return config


def walk_config(config: Any) -> Iterator[tuple[Any, str, bool]]:
    """Yield every value in a configuration, its key, and whether its numbers are sizes.

    Items of a list have the key "". Strings in lists, such as vocabularies, are left out.
    """
    pending = [(config, "", True, 0)]
    while pending:
        value, key, is_size, depth = pending.pop()
        if depth > MAX_DEPTH:
            raise config_error(f"a configuration nested more than {MAX_DEPTH} deep")
        yield value, key, is_size
        if isinstance(value, dict):
            pending += [
                (inner, name, is_size and name not in _VALUE_ARGUMENTS, depth + 1)
                for name, inner in value.items()
            ]
        elif isinstance(value, list):
            pending += [
                (item, "", is_size, depth + 1) for item in value if not isinstance(item, str)
            ]


def _size(value: Any, key: str) -> int:
    """The absolute value of an int, the number of elements of a shape, 0 for anything else."""
    if is_int(value):
        return abs(value)
    if isinstance(value, list) and "shape" in key:
        return math.prod(max(abs(axis), 1) for axis in value if is_int(axis))
    return 0


def _check_object(value: dict[str, Any], custom_objects: Mapping[str, Any], max_size: int) -> Any:
    """The class or function that an object of a configuration names, or None for plain data."""
    name, config = value["class_name"], value.get("config")
    if name in _DATA_TYPES:
        if name in ("__numpy__", "__tensor__"):
            _check_array(config)
        return None
    if not isinstance(name, str) or "config" not in value or "module" not in value:
        raise config_error(f"an object without config or module: {str(name)[:80]!r}")
    if name.startswith("__"):
        received = "a Python lambda, which is bytecode" if name == "__lambda__" else repr(name[:80])
        raise config_error(received, "Write it as a function or a layer, and register that.")
    if name == "function":
        return _check_function(value, custom_objects)
    return _check_class(value, custom_objects, max_size)


def _check_array(config: Any) -> None:
    dtype = str(config.get("dtype")) if isinstance(config, dict) else "none"
    allowed = dtype in _DTYPES
    width = re.fullmatch("<U([0-9]{1,9})", dtype)
    if width:  # NumPy allocates this many characters for each string
        allowed = _count(config.get("value")) * int(width[1]) <= MAX_VALUES
    if not allowed:
        raise config_error(f"an array of dtype {dtype[:80]!r}")


def _count(values: Any) -> int:
    """The number of items of nested lists."""
    pending, count = [values], 0
    while pending:
        value = pending.pop()
        if isinstance(value, list):
            pending += value
        else:
            count += 1
    return count


def _check_nodes(nodes: Any) -> None:
    """Refuse calls on constants alone, which Keras runs while it builds the model."""
    for node in nodes if isinstance(nodes, list) else ():
        if isinstance(node, dict) and not any(
            isinstance(value, dict) and value.get("class_name") == "__keras_tensor__"
            for value, *_ in walk_config(node)
        ):
            raise config_error("a layer that is called on constants alone")


def _check_function(value: dict[str, Any], custom_objects: Mapping[str, Any]) -> Any:
    name, module = value["config"], value["module"]
    if not isinstance(name, str):
        raise config_error("a function without a name")
    function = keras.saving.get_registered_object(name, custom_objects=custom_objects)
    if function is not None:
        return function
    submodules = _FUNCTIONS if module == "builtins" else [str(module).removeprefix("keras.")]
    excluded = name in _EXCLUDED_FUNCTIONS or name.startswith("_")
    for submodule in submodules:
        allowed = submodule in _FUNCTIONS and not excluded
        if allowed and callable(getattr(getattr(keras, submodule), name, None)):
            return None
    raise config_error(_describe("function", module, name), _registration_hint(module))


def _check_class(value: dict[str, Any], custom_objects: Mapping[str, Any], max_size: int) -> type:
    name, module = value["class_name"], value["module"]
    registered = value.get("registered_name", name)
    cls = keras.saving.get_registered_object(registered, custom_objects=custom_objects)
    if cls is None:
        cls = _keras_class(module, name)
        if not isinstance(cls, type) or not issubclass(cls, _BASES):
            raise config_error(_describe("class", module, name), _registration_hint(module))
    elif registered != name and getattr(cls, "__name__", None) != name:
        raise config_error(
            f"a class named {name[:80]!r} and registered as {str(registered)[:80]!r}"
        )
    unsafe = tuple(getattr(keras.layers, layer) for layer in UNSAFE_LAYERS)
    if isinstance(cls, type) and issubclass(cls, unsafe):
        raise config_error(
            f"a {cls.__name__}, which runs code from the file",
            "Write it as a layer, and register that.",
        )
    if isinstance(value["config"], dict) and is_int(value["config"].get("fft_length")):
        _check_spectrogram(value["config"], max_size)
    return cls


def _keras_class(module: Any, name: str) -> Any:
    """The class of Keras that a configuration means, without importing anything, or None."""
    if not isinstance(module, str) or not (module + ".").startswith("keras."):
        return None
    value: Any = keras
    for part in [*module.split(".")[1:], name]:
        value = None if part.startswith("_") else getattr(value, part, None)
    if value is None and not name.startswith("_"):
        value = vars(sys.modules.get(module, object)).get(name)
    return value if getattr(value, "__module__", "").startswith("keras.") else None


def _check_spectrogram(config: dict[str, Any], max_size: int) -> None:
    """Bound the filters, which spectrogram layers compute while they are built."""
    bins = config.get("num_mel_bins")
    size = config["fft_length"] * (bins if is_int(bins) else config["fft_length"])
    if size > max_size:
        raise config_error(
            f"filters of {size:,} values; at most {max_size:,} are allowed",
            "If you trust the file, allow more with max_size=.",
        )


def _describe(kind: str, module: Any, name: str) -> str:
    return f"the {kind} {f'{module}.{name}'[:120]!r}"


def _registration_hint(module: Any) -> str:
    package = str(module).split(".")[0][:40]
    if package in ("builtins", "keras", "None"):
        return (
            "If it is yours, register it or pass it as custom_objects=. Else do not use the file."
        )
    return (
        f"If it is yours, import {package} so that it is registered, or pass it as "
        "custom_objects=. Else do not use the file."
    )
