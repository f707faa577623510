"""What the configuration in a model file may name, and how large; checked before anything is built.

Allowed are Keras's own layers, models, operations, initializers, regularizers, constraints, losses,
metrics, optimizers and functions; and classes that this process knows by their registered name.
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
# Layers that run what they are given: bytecode, a SavedModel, another library's program.
REFUSED = ("FlaxLayer", "JaxLayer", "Lambda", "TFSMLayer", "TorchModuleWrapper")
_BASES = (
    keras.Operation,  # layers and models are operations, too
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
_NO_FUNCTIONS = ("custom_gradient", "deserialize", "get", "serialize")
_DTYPES = (
    "bfloat16", "bool", "string",
    *(f"float{bits}" for bits in (16, 32, 64)),
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
)  # fmt: skip
_PLAIN = ("__bytes__", "__ellipsis__", "__keras_tensor__", "__numpy__", "__slice__", "__tensor__")
# Of a layer's arguments, those where a string would be a file; elsewhere it is a name.
_PATHS = ("file", "filename", "filepath", "fname", "origin", "path", "url", "vocabulary")
_NO_SIZES = ("compile_config", "fill_value", "mask_token", "mask_value", "oov_token", "salt",
             "seed", "shared_object_id", "value", "vocabulary")  # fmt: skip


def read_config(
    text: bytes, custom_objects: Mapping[str, Any], *, max_size: int, max_layers: int
) -> tuple[dict[str, Any], list[type]]:
    """The configuration of a model, and the classes of others that it names.

    Args:
        text: bytes of JSON.
        custom_objects: mapping of name to class or function, beside what is registered.
        max_size: int, the largest number of units or features, and of elements of a shape.
        max_layers: int, how many layers there may be.

    Raises:
        ArtifactError: if it is none, names what is not allowed, or is too large.
    """
    config = _parsed(text)
    custom: list[type] = []
    layers = 0
    for value, key, sizes in walk(config):
        if isinstance(value, dict):
            _check_nodes(value.get("inbound_nodes"))
        if isinstance(value, dict) and "class_name" in value:
            found = _check_object(value, custom_objects, max_size)
            if isinstance(found, type):
                layers += issubclass(found, keras.Operation)
                if not found.__module__.startswith(("keras.", "keras_seqzoo.")):
                    custom.append(found)
        elif isinstance(value, str):
            if key in _PATHS and value:
                raise refused(
                    f"a layer that reads a file: {key}={value[:80]!r}",
                    "Give the layer its vocabulary as a list before the model is saved.",
                )
        elif sizes and _size(value, key) > max_size:
            raise refused(
                f"{key}={str(value)[:80]}, where sizes of up to {max_size:,} are allowed",
                "If you trust it, allow more with max_size=.",
            )
        if layers > max_layers:
            raise refused(
                f"more than {max_layers:,} layers", "If you trust it, allow more with max_layers=."
            )
    return config, custom


def refused(received: str, hint: str) -> ArtifactError:
    """The error of a model that holds what it must not."""
    return ArtifactError(
        "`path` must be a model of Keras's layers, the zoo's, and classes that you registered or "
        f"gave as custom_objects=. Received: {received}. {hint}"
    )


def _parsed(text: bytes) -> dict[str, Any]:
    if sum(map(text.count, (b",", b"[", b"{"))) > MAX_VALUES:
        raise refused(f"a configuration of more than {MAX_VALUES:,} values", "Do not use it.")
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise refused(f"a configuration that is no JSON ({error})", "Get the file again.") from None
    if not isinstance(config, dict) or not {"class_name", "config", "module"} <= set(config):
        raise refused("a configuration of no model", "Save it with model.save('name.keras').")
    return config


def walk(config: Any) -> Iterator[tuple[Any, str, bool]]:
    """Every value, the name that it goes by, and whether numbers in it are sizes."""
    waiting = [(config, "", True, 0)]
    while waiting:
        value, key, sizes, depth = waiting.pop()
        if depth > MAX_DEPTH:
            raise refused(f"a configuration nested more than {MAX_DEPTH} deep", "Do not use it.")
        yield value, key, sizes
        if isinstance(value, dict):
            waiting += [
                (inner, name, sizes and name not in _NO_SIZES, depth + 1)
                for name, inner in value.items()
            ]
        elif isinstance(value, list):
            # Of a list of strings, as a vocabulary is, there is nothing to look at.
            waiting += [(one, "", sizes, depth + 1) for one in value if not isinstance(one, str)]


def _size(value: Any, key: str) -> int:
    """How large a number or a shape is."""
    if is_int(value):
        return abs(value)
    if isinstance(value, list) and "shape" in key:
        return math.prod(max(abs(one), 1) for one in value if is_int(one))
    return 0


def _check_object(value: dict[str, Any], custom_objects: Mapping[str, Any], max_size: int) -> Any:
    """The class or function that a configuration names, or None of plain data."""
    name, config = value["class_name"], value.get("config")
    if name in _PLAIN:
        if name in ("__numpy__", "__tensor__"):
            _check_array(config)
        return None
    if not isinstance(name, str) or "config" not in value or "module" not in value:
        raise refused(f"an object without config or module: {str(name)[:80]!r}", "Do not use it.")
    if name.startswith("__"):
        what = "a Python lambda, which is bytecode" if name == "__lambda__" else repr(name[:80])
        raise refused(what, "Write it as a function or a layer, and register that.")
    if name == "function":
        return _check_function(value, custom_objects)
    return _check_class(value, custom_objects, max_size)


def _check_array(config: Any) -> None:
    kind = str(config.get("dtype")) if isinstance(config, dict) else "none"
    known = kind in _DTYPES
    width = re.fullmatch("<U([0-9]{1,9})", kind)
    if width:  # each string takes as much room as this says
        known = _count(config.get("value")) * int(width[1]) <= MAX_VALUES
    if not known:
        raise refused(f"an array of {kind[:80]!r}", "Do not use it.")


def _count(values: Any) -> int:
    waiting, count = [values], 0
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting += value
        else:
            count += 1
    return count


def _check_nodes(nodes: Any) -> None:
    """A layer that is called on constants alone would run at once, whatever its size."""
    for node in nodes if isinstance(nodes, list) else ():
        if isinstance(node, dict) and not any(
            isinstance(value, dict) and value.get("class_name") == "__keras_tensor__"
            for value, *_ in walk(node)
        ):
            raise refused("a layer that is called on no tensor of the model", "Do not use it.")


def _check_function(value: dict[str, Any], custom_objects: Mapping[str, Any]) -> Any:
    name, module = value["config"], value["module"]
    if not isinstance(name, str):
        raise refused("a function without a name", "Do not use it.")
    found = keras.saving.get_registered_object(name, custom_objects=custom_objects)
    if found is not None:
        return found
    rooms = _FUNCTIONS if module == "builtins" else [str(module).removeprefix("keras.")]
    for room in rooms:
        known = room in _FUNCTIONS and name not in _NO_FUNCTIONS and not name.startswith("_")
        if known and callable(getattr(getattr(keras, room), name, None)):
            return None
    raise refused(_named("function", module, name), _register(module))


def _check_class(value: dict[str, Any], custom_objects: Mapping[str, Any], max_size: int) -> type:
    name, module = value["class_name"], value["module"]
    registered = value.get("registered_name", name)
    found = keras.saving.get_registered_object(registered, custom_objects=custom_objects)
    if found is not None:
        if registered != name and getattr(found, "__name__", None) != name:
            raise refused(
                f"a class that says it is {name[:80]!r} and goes by the name of "
                f"{str(registered)[:80]!r}",
                "Do not use it.",
            )
    else:
        found = _of_keras(module, name)
        if not isinstance(found, type) or not issubclass(found, _BASES):
            raise refused(_named("class", module, name), _register(module))
    if isinstance(found, type) and any(
        issubclass(found, getattr(keras.layers, one)) for one in REFUSED
    ):
        raise refused(
            f"a {found.__name__}, which runs what the file says",
            "Write it as a layer, and register that.",
        )
    if isinstance(value["config"], dict) and is_int(value["config"].get("fft_length")):
        _check_spectrogram(value["config"], max_size)
    return found


def _of_keras(module: Any, name: str) -> Any:
    """A name of Keras's, found as Keras does, but without importing anything."""
    if not isinstance(module, str) or not (module + ".").startswith("keras."):
        return None
    found: Any = keras
    for part in [*module.split(".")[1:], name]:
        found = None if part.startswith("_") else getattr(found, part, None)
    if found is None and not name.startswith("_"):
        found = vars(sys.modules.get(module, object)).get(name)
    return found if getattr(found, "__module__", "").startswith("keras.") else None


def _check_spectrogram(config: dict[str, Any], max_size: int) -> None:
    """These layers compute their filters while they are built, whatever the file holds."""
    bins = config.get("num_mel_bins")
    size = config["fft_length"] * (bins if is_int(bins) else config["fft_length"])
    if size > max_size:
        raise refused(
            f"filters of {size:,} numbers, where {max_size:,} are allowed",
            "If you trust it, allow more with max_size=.",
        )


def _named(kind: str, module: Any, name: str) -> str:
    return f"the {kind} {f'{module}.{name}'[:120]!r}"


def _register(module: Any) -> str:
    package = str(module).split(".")[0][:40]
    if package in ("builtins", "keras", "None"):
        return "If it is yours, register it or give it as custom_objects=; else leave the file."
    return (
        f"If it is yours, import {package} first so that it is registered, or give it as "
        "custom_objects=; else leave the file."
    )
