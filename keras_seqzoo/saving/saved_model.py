"""Checks of the operations of a SavedModel, without running it.

A SavedModel is a program. Loading it runs its initializers, and calling it runs the rest. A program
that could access files, the network or Python is refused. An accepted one can still return wrong
results or run for ever.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from keras_seqzoo.errors import ArtifactError
from keras_seqzoo.utils import compat

MAX_FILES = 1_000
# Stateful operations may access files, devices or other machines. These only keep state in the
# process: variables, tables, loops, random numbers.
_HARMLESS_STATEFUL = re.compile(
    r"Anonymous(Mutable(Dense)?)?HashTable\w*|Assert|Assign(Add|Sub)?VariableOp|Case"
    r"|CheckNumerics(V2)?|CudnnRNN(V2|V3)?|DestroyResourceOp|DeviceIndex|DisableCopyOnRead|Empty"
    r"|GuaranteeConst|(Mutable(Dense)?)?HashTable(OfTensors)?(V2)?|If|InitializeTableV2"
    r"|LookupTable(Export|Find|Import|Insert|Remove|Size)V2|Multinomial|NonDeterministicInts"
    r"|ParameterizedTruncatedNormal|Random(Gamma|PoissonV2|Shuffle|StandardNormal|Uniform(Int)?)"
    r"|ReadVariableOp|Resource(Gather(Nd)?|Scatter\w+|StridedSliceAssign)|Rng(ReadAndSkip|Skip)"
    r"|Stack(Close|Pop|Push)?(V2)?|StatefulPartitionedCall|StatefulRandomBinomial"
    r"|Stateful(StandardNormal(V2)?|TruncatedNormal|Uniform(FullInt|Int)?)|StatelessRandomGetAlg"
    r"|TensorArray(Close|Concat|Gather|Read|Scatter|Size|Split|Write)?(V2|V3)?|TruncatedNormal"
    r"|VarHandleOp|VarIsInitializedOp|VariableShape|While"
)
# Operations with access to files or Python that TensorFlow does not declare as stateful.
_EXTERNAL_ACCESS = re.compile(
    r"\w*(Checkpoint|Dataset|Debug|File|Iterator|PyFunc|Reader|Restore|Save|Sharded|Summary)\w*"
)


def check_saved_model(path: Path, *, max_bytes: int) -> None:
    """Raise `ArtifactError` unless a SavedModel is self-contained and free of side effects.

    Args:
        path: folder with a `saved_model.pb`.
        max_bytes: int, upper bound of the size of all its files.
    """
    _check_files(path, max_bytes)
    from google.protobuf.message import DecodeError

    try:
        saved = compat.parse_saved_model((path / "saved_model.pb").read_bytes())
    except DecodeError:
        raise saved_model_error(
            "a folder whose saved_model.pb is damaged", "Get the folder again."
        ) from None
    if len(saved.meta_graphs) != 1 or not saved.meta_graphs[0].object_graph_def.nodes:
        raise saved_model_error(
            "a SavedModel of TensorFlow 1, without objects", "Write it again with zoo.export."
        )
    graph = saved.meta_graphs[0]
    for asset in graph.asset_file_def:
        if os.path.basename(asset.filename) != asset.filename or ".." in asset.filename:
            raise saved_model_error(f"the asset {asset.filename[:80]!r} outside the folder")
    for operation in sorted(set(_operations(graph))):
        if not _is_harmless(operation):
            raise saved_model_error(
                f"operation {operation[:80]}, which may access files, the network or Python",
                "Do not use this folder. If you wrote it, load it with tf.saved_model.load.",
            )


def saved_model_error(received: str, hint: str = "Do not use this folder.") -> ArtifactError:
    """Return the error for a folder that is not a SavedModel as `export` writes it."""
    return ArtifactError(
        "`path` must be a complete SavedModel without side effects, as zoo.export writes it. "
        f"Received: {received}. {hint}"
    )


def _check_files(path: Path, max_bytes: int) -> None:
    """Refuse links and devices, and bound the number and size of files."""
    root, count, total = path.resolve(), 0, 0
    for folder, folders, names in os.walk(root):
        for name in [*folders, *names]:
            file = Path(folder, name)
            if file.is_symlink() or not (file.is_dir() or file.is_file()):
                raise saved_model_error(
                    f"a link or a device, {name[:80]!r}", "Replace the link with a copy."
                )
            count += 1
            total += 0 if file.is_dir() else file.stat().st_size
            if count > MAX_FILES:
                raise saved_model_error(f"more than {MAX_FILES:,} files")
            if total > max_bytes:
                raise saved_model_error(
                    f"more than {max_bytes:,} bytes",
                    "If you trust the folder, allow more with max_bytes=.",
                )


def _operations(graph: Any) -> Iterator[str]:
    """Yield the names of the operations that can run, from calls of functions too.

    Every SavedModel has functions that save and restore it, for TensorFlow 1. Only the nodes of
    `saver_def` call them, and nothing runs those nodes; so these calls are left out.
    """
    functions = {
        function.signature.name: function.node_def for function in graph.graph_def.library.function
    }
    saver_nodes = {
        name.removeprefix("^").split(":")[0]
        for name in (
            graph.saver_def.save_tensor_name,
            graph.saver_def.restore_op_name,
        )
    }
    nodes = [
        node
        for node in graph.graph_def.node
        if node.name not in saver_nodes or node.op != "StatefulPartitionedCall"
    ]
    yield from (node.op for node in nodes)
    pending = [*graph.object_graph_def.concrete_functions, *_called_functions(nodes)]
    visited = set()
    while pending:
        name = pending.pop()
        if name not in visited:
            visited.add(name)
            body = functions.get(name, ())
            yield from (node.op for node in body if node.op not in functions)
            pending += [node.op for node in body if node.op in functions]
            pending += _called_functions(body)


def _called_functions(nodes: Iterable[Any]) -> list[str]:
    """The names of the functions in the attributes of nodes."""
    values = [value for node in nodes for value in node.attr.values()]
    lists = [value.list.func for value in values if value.HasField("list")]
    return [
        *(value.func.name for value in values if value.HasField("func")),
        *(function.name for functions in lists for function in functions),
    ]


def _is_harmless(operation: str) -> bool:
    """Whether an operation accesses nothing outside the process, and no Python."""
    definition = compat.op_definition(operation)
    if definition is None or _EXTERNAL_ACCESS.fullmatch(operation):
        return False
    return not definition.is_stateful or _HARMLESS_STATEFUL.fullmatch(operation) is not None
