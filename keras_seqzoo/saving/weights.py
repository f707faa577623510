"""Checks of the weights of a model file: only numbers, stored in the file, as many as needed."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping
from typing import Any

import h5py
import keras
import numpy as np

from keras_seqzoo.errors import ArtifactError
from keras_seqzoo.saving.archive import archive_error
from keras_seqzoo.saving.config import config_error, walk_config
from keras_seqzoo.utils import compat

MAX_OBJECTS, MAX_UNROLLED = 100_000, 1_000
# A dataset that expands to more than 1 MiB and by more than this ratio is a decompression bomb.
MAX_RATIO, MIN_EXPANDED = 100, 2**20
# Some layers save fewer weights than they have (LoRA factors are merged), or some of them twice.
MAX_FACTOR, SLACK = 2, 2**20
_OPTIMIZER, _SEED_DTYPE = "/optimizer/", "uint32"


def count_weights(weights: bytes, *, max_bytes: int) -> int:
    """Check an HDF5 file of weights, and count them without optimizer and seed generator states.

    Args:
        weights: bytes of the file.
        max_bytes: int, upper bound of the size of all datasets.

    Raises:
        ArtifactError: if the file is damaged, or has anything but numbers that are stored in it.
    """
    count = total = 0
    try:
        with h5py.File(io.BytesIO(weights), "r") as file:
            for name, dataset in _datasets(file):
                total += _checked_bytes(name, dataset)
                if total > max_bytes:
                    raise archive_error(
                        f"a file whose weights take more than {max_bytes:,} bytes",
                        "If you trust the file, allow more with max_bytes=.",
                    )
                if _OPTIMIZER not in name and dataset.dtype != _SEED_DTYPE:
                    count += math.prod(dataset.shape or ())
                    _check_not_nan(name, dataset)
    except ArtifactError:
        raise
    except Exception as error:  # h5py raises many types for a damaged file
        raise archive_error(
            f"a file whose weights are damaged ({error})", "Get the file again."
        ) from error
    return count


def _datasets(file: h5py.File) -> Iterator[tuple[str, h5py.Dataset]]:
    """Yield every dataset and its path; links and objects with two paths are refused."""
    visited: set[int] = set()
    pending: list[tuple[str, h5py.Group]] = [("", file)]
    while pending:
        path, group = pending.pop()
        for name in group:
            if len(visited) > MAX_OBJECTS:
                raise archive_error(f"a file of more than {MAX_OBJECTS:,} objects")
            link = group.get(name, getlink=True)
            if not isinstance(link, h5py.HardLink):
                kind = type(link).__name__
                raise archive_error(f"a file whose weights {path}/{name} are a link ({kind})")
            item = group[name]
            address = h5py.h5o.get_info(item.id).addr  # pyright: ignore[reportAttributeAccessIssue]  # Cython
            if address in visited:
                raise archive_error(f"a file with two paths to {path}/{name}")
            visited.add(address)
            if isinstance(item, h5py.Dataset):
                yield f"{path}/{name}", item
            elif isinstance(item, h5py.Group):
                pending.append((f"{path}/{name}", item))
            else:
                raise archive_error(f"a file with an HDF5 type at {path}/{name}")


def _checked_bytes(name: str, dataset: h5py.Dataset) -> int:
    """Check the type and storage of a dataset, and return its size in memory in bytes."""
    declared = math.prod(dataset.shape or ()) * dataset.dtype.itemsize
    stored = dataset.id.get_storage_size()
    if dataset.external or dataset.is_virtual:
        problem = "are stored in another file"
    elif dataset.dtype.kind not in "biufcV" or dataset.dtype.hasobject or dataset.shape is None:
        problem = f"are not numbers, but {dataset.dtype}"
    elif declared > max(MIN_EXPANDED, MAX_RATIO * stored):
        problem = f"expand from {stored:,} to {declared:,} bytes"
    else:
        return declared
    raise archive_error(f"a file whose weights {name} {problem}")


def _check_not_nan(name: str, dataset: h5py.Dataset) -> None:
    if dataset.dtype.kind == "f" and np.isnan(dataset[()]).any():
        raise archive_error(
            f"a file whose weights {name} contain NaN",
            "Train the model again, since it diverged, or get the file again.",
        )


def check_weights(
    config: dict[str, Any],
    stored: int,
    custom_objects: Mapping[str, Any],
    custom: list[type],
    *,
    max_bytes: int,
) -> None:
    """Build the model without allocating weights, and compare their number with the file's.

    A file of a few bytes can declare a layer of a billion units.

    Args:
        config: dict, the configuration of the model.
        stored: int, the number of weights in the file.
        custom_objects: mapping of name to class or function, in addition to registered ones.
        custom: list of the classes that are neither Keras's nor this package's.
        max_bytes: int, upper bound of the size of the weights.

    Raises:
        ArtifactError: if the model cannot be built, or the numbers of weights do not match.
    """
    try:
        model = _build_without_weights(config, custom_objects)
    except Exception as error:
        if custom:
            return  # a user's class may create weights in a way that this scope does not support
        cause = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        hint = "Get the file again."
        raise config_error(f"a model that cannot be built ({cause})", hint) from error
    if not isinstance(model, keras.Model):
        raise config_error(f"a {type(model).__name__}, which is not a model", "Save a keras.Model.")
    weights = {id(weight): weight for weight in model.weights if weight.dtype != _SEED_DTYPE}
    needed = sum(math.prod(weight.shape) for weight in weights.values())
    needed_bytes = sum(
        math.prod(weight.shape) * _itemsize(weight.dtype) for weight in weights.values()
    )
    fewest, most = sorted((needed, stored))
    if most > MAX_FACTOR * fewest + SLACK or needed_bytes > max_bytes:
        raise archive_error(
            f"a file with {stored:,} weights for layers with {needed:,}",
            "Do not use this file. It is damaged, or made to exhaust the memory.",
        )
    _check_unrolled(config, model)


def _build_without_weights(config: dict[str, Any], custom_objects: Mapping[str, Any]) -> Any:
    with (
        compat.discarding_uninitialized_variables(),
        keras.StatelessScope(initialize_variables=False),
    ):
        return keras.saving.deserialize_keras_object(
            _without_training(config), custom_objects=dict(custom_objects), safe_mode=True
        )


def _without_training(config: Any) -> Any:
    """A configuration without optimizer, state between calls and unrolled loops."""
    if isinstance(config, list):
        return [_without_training(item) for item in config]
    if not isinstance(config, dict):
        return config
    replaced = {"compile_config": None, "stateful": False, "unroll": False}
    return {
        name: replaced[name] if name in replaced else _without_training(value)
        for name, value in config.items()
    }


def _itemsize(dtype: Any) -> int:
    return 2 if dtype == "bfloat16" else np.dtype("int8" if "8" in dtype else dtype).itemsize


def _check_unrolled(config: dict[str, Any], model: keras.Model) -> None:
    """Bound the steps of unrolled loops, each of which takes memory while the model is built."""
    if not any(key == "unroll" and value is True for value, key, _ in walk_config(config)):
        return
    for layer in compat.flatten_layers(model):
        for node in compat.inbound_nodes(layer):
            for tensor in keras.tree.flatten(node.output_tensors):
                if len(tensor.shape) > 2 and (tensor.shape[1] or 0) > MAX_UNROLLED:
                    raise config_error(
                        f"an unrolled loop of {tensor.shape[1]:,} steps",
                        "Save the model with unroll=False.",
                    )
