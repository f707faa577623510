"""Weights in a model file: nothing but numbers that lie in it, as many as the model has."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping
from typing import Any

import h5py
import keras
import numpy as np

from keras_seqzoo.errors import ArtifactError
from keras_seqzoo.saving.archive import refused
from keras_seqzoo.saving.config import refused as refused_model
from keras_seqzoo.saving.config import walk
from keras_seqzoo.utils import compat

MAX_OBJECTS, MAX_UNROLLED = 100_000, 1_000
MAX_RATIO, PACKED_AT_LEAST = 100, 2**20
# Some layers save less than they have (LoRA is folded in), or some of it twice.
MAX_FACTOR, SLACK = 2, 2**20
_OPTIMIZER, _SEED = "/optimizer/", "uint32"


def count_weights(weights: bytes, *, max_bytes: int) -> int:
    """How many numbers the HDF5 file holds, without those of an optimizer and of random states.

    Args:
        weights: bytes of the file.
        max_bytes: int, the most that all numbers may take.

    Raises:
        ArtifactError: if it is damaged, or holds anything but numbers that lie in it.
    """
    count = total = 0
    try:
        with h5py.File(io.BytesIO(weights), "r") as file:
            for name, dataset in _datasets(file):
                total += _checked_bytes(name, dataset)
                if total > max_bytes:
                    raise refused(
                        f"one whose weights take more than {max_bytes:,} bytes",
                        "If you trust it, allow more with max_bytes=.",
                    )
                if _OPTIMIZER not in name and dataset.dtype != _SEED:
                    count += dataset.size
                    _check_numbers(name, dataset)
    except ArtifactError:
        raise
    except Exception as error:  # a damaged file fails in as many ways as it has bytes
        raise refused(f"one whose weights are damaged ({error})", "Get the file again.") from error
    return count


def _datasets(file: h5py.File) -> Iterator[tuple[str, h5py.Dataset]]:
    """Every dataset by its path; links are not followed, and no object is visited twice."""
    seen, waiting = set(), [("", file)]
    while waiting:
        path, group = waiting.pop()
        for name in group:
            if len(seen) > MAX_OBJECTS:
                raise refused(f"one of more than {MAX_OBJECTS:,} objects", "Do not use this file.")
            kind = group.get(name, getclass=True, getlink=True)
            if kind is not h5py.HardLink:
                raise refused(
                    f"one whose weights {path}/{name} are a link ({kind.__name__})",
                    "Do not use this file.",
                )
            inner = group[name]
            address = h5py.h5o.get_info(inner.id).addr
            if address in seen:
                raise refused(f"one with {path}/{name} in two places", "Do not use this file.")
            seen.add(address)
            if isinstance(inner, h5py.Dataset):
                yield f"{path}/{name}", inner
            elif isinstance(inner, h5py.Group):
                waiting.append((f"{path}/{name}", inner))
            else:
                raise refused(f"one with a type at {path}/{name}", "Do not use this file.")


def _checked_bytes(name: str, dataset: h5py.Dataset) -> int:
    """How many bytes the numbers take in memory."""
    declared = math.prod(dataset.shape or ()) * dataset.dtype.itemsize
    stored = dataset.id.get_storage_size()
    if dataset.external or dataset.is_virtual:
        what = "lie in another file"
    elif dataset.dtype.kind not in "biufcV" or dataset.dtype.hasobject or dataset.shape is None:
        what = f"are no numbers, but {dataset.dtype}"
    elif declared > max(PACKED_AT_LEAST, MAX_RATIO * stored):
        what = f"grow from {stored:,} to {declared:,} bytes"
    else:
        return declared
    raise refused(f"one whose weights {name} {what}", "Do not use this file.")


def _check_numbers(name: str, dataset: h5py.Dataset) -> None:
    if dataset.dtype.kind == "f" and np.isnan(dataset[()]).any():
        raise refused(
            f"one whose weights {name} are not all numbers",
            "Train the model again: it has diverged, or the file is damaged.",
        )


def check_weights(
    config: dict[str, Any],
    stored: int,
    custom_objects: Mapping[str, Any],
    custom: list[type],
    *,
    max_bytes: int,
) -> None:
    """Builds the model without its weights, and compares how many it has with what is stored.

    A file of a few bytes can ask for a layer of a billion units: that is found before any memory is
    taken.

    Raises:
        ArtifactError: if it cannot be built, or has other weights than the file.
    """
    try:
        model = _without_weights(config, custom_objects)
    except Exception as error:
        if custom:
            return  # a class of the user's, which makes its weights in a way of its own
        cause = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        hint = "Get the file again."
        raise refused_model(f"one that cannot be built ({cause})", hint) from error
    if not isinstance(model, keras.Model):
        raise refused_model(f"a {type(model).__name__}, which is no model", "Save a keras.Model.")
    weights = {id(one): one for one in model.weights if one.dtype != _SEED}.values()
    needed = sum(math.prod(weight.shape) for weight in weights)
    taken = sum(math.prod(weight.shape) * _itemsize(weight.dtype) for weight in weights)
    fewest, most = sorted((needed, stored))
    if most > MAX_FACTOR * fewest + SLACK or taken > max_bytes:
        raise refused(
            f"one of layers with {needed:,} weights that holds {stored:,}",
            "Do not use this file: it is damaged, or made to fill the memory.",
        )
    _check_unrolled(config, model)


def _without_weights(config: dict[str, Any], custom_objects: Mapping[str, Any]) -> Any:
    with (
        compat.discarding_uninitialized_variables(),
        keras.StatelessScope(initialize_variables=False),
    ):
        return keras.saving.deserialize_keras_object(
            _bare(config), custom_objects=dict(custom_objects), safe_mode=True
        )


def _bare(config: Any) -> Any:
    """Without what is for training or kept between calls, and with loops as loops."""
    if isinstance(config, list):
        return [_bare(one) for one in config]
    if not isinstance(config, dict):
        return config
    changed = {"compile_config": None, "stateful": False, "unroll": False}
    return {
        name: changed[name] if name in changed else _bare(value) for name, value in config.items()
    }


def _itemsize(dtype: Any) -> int:
    return 2 if dtype == "bfloat16" else np.dtype("int8" if "8" in dtype else dtype).itemsize


def _check_unrolled(config: dict[str, Any], model: keras.Model) -> None:
    """A loop that is written out takes memory for each step as soon as it is built."""
    if not any(key == "unroll" and value is True for value, key, _ in walk(config)):
        return
    for layer in compat.flatten_layers(model):
        for node in compat.inbound_nodes(layer):
            for tensor in keras.tree.flatten(node.output_tensors):
                if len(tensor.shape) > 2 and (tensor.shape[1] or 0) > MAX_UNROLLED:
                    raise refused_model(
                        f"a loop of {tensor.shape[1]:,} steps to be written out",
                        "Save the model with unroll=False.",
                    )
