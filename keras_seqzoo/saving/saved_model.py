"""What a SavedModel would run, read without running it.

A SavedModel is a program: loading it runs its initializers, and calling it runs the rest. Refused
here is one that could touch files, the network or Python; what remains can compute wrongly, or for
ever, and no more.
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
# What TensorFlow calls stateful may reach files, devices or other machines; these do not. They keep
# something in the process: variables, tables, loops, random numbers.
_STATEFUL = re.compile(
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
# TensorFlow does not call these stateful.
_REACHING = re.compile(
    r"\w*(Checkpoint|Dataset|Debug|File|Iterator|PyFunc|Reader|Restore|Save|Sharded|Summary)\w*"
)


def check_saved_model(path: Path, *, max_bytes: int) -> None:
    """Raises `ArtifactError` unless the SavedModel lies in its folder and only computes.

    Args:
        path: folder with a `saved_model.pb`.
        max_bytes: int, the most that its files may hold.
    """
    _check_files(path, max_bytes)
    from google.protobuf.message import DecodeError

    try:
        saved = compat.parse_saved_model((path / "saved_model.pb").read_bytes())
    except DecodeError:
        raise refused("one whose saved_model.pb is damaged", "Get the folder again.") from None
    if len(saved.meta_graphs) != 1 or not saved.meta_graphs[0].object_graph_def.nodes:
        raise refused(
            "one without objects, as TensorFlow 1 wrote them", "Write it again with zoo.export."
        )
    graph = saved.meta_graphs[0]
    for asset in graph.asset_file_def:
        if os.path.basename(asset.filename) != asset.filename or ".." in asset.filename:
            raise refused(f"one with the asset {asset.filename[:80]!r}", "Do not use this folder.")
    for operation in sorted(set(_operations(graph))):
        if not _computes(operation):
            raise refused(
                f"one that runs {operation[:80]}, which may reach files, the network or Python",
                "Do not use this folder; if you wrote it, load it with tf.saved_model.load.",
            )


def refused(received: str, hint: str) -> ArtifactError:
    """The error of a SavedModel that is not what `export` writes."""
    return ArtifactError(
        "`path` must be a whole SavedModel that only computes, as zoo.export writes it. "
        f"Received: {received}. {hint}"
    )


def _check_files(path: Path, max_bytes: int) -> None:
    """No link leads out of the folder, and what it holds is bounded."""
    root, count, total = path.resolve(), 0, 0
    for folder, folders, names in os.walk(root):
        for name in [*folders, *names]:
            file = Path(folder, name)
            if file.is_symlink() or not (file.is_dir() or file.is_file()):
                raise refused(f"one with a link or a device, {name[:80]!r}", "Copy what it means.")
            count += 1
            total += 0 if file.is_dir() else file.stat().st_size
            if count > MAX_FILES:
                raise refused(f"one of more than {MAX_FILES:,} files", "Do not use this folder.")
            if total > max_bytes:
                raise refused(
                    f"one of more than {max_bytes:,} bytes",
                    "If you trust it, allow more with max_bytes=.",
                )


def _operations(graph: Any) -> Iterator[str]:
    """The names of the operations that can run: all but those that would save it again.

    Every SavedModel holds functions that save and restore it by file, for TensorFlow 1. Nothing
    calls them but `saver_def`; if anything else does, they count.
    """
    functions = {one.signature.name: one.node_def for one in graph.graph_def.library.function}
    saver = {
        name.removeprefix("^").split(":")[0]
        for name in (
            graph.saver_def.save_tensor_name,
            graph.saver_def.restore_op_name,
        )
    }
    nodes = [
        node
        for node in graph.graph_def.node
        if node.name not in saver or node.op != "StatefulPartitionedCall"
    ]
    yield from (node.op for node in nodes)
    waiting = [*graph.object_graph_def.concrete_functions, *_called(nodes)]
    seen = set()
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            inside = functions.get(name, ())
            yield from (node.op for node in inside if node.op not in functions)
            waiting += [node.op for node in inside if node.op in functions]
            waiting += _called(inside)


def _called(nodes: Iterable[Any]) -> list[str]:
    """The functions that nodes name in their attributes."""
    values = [value for node in nodes for value in node.attr.values()]
    lists = [value.list.func for value in values if value.HasField("list")]
    return [
        *(value.func.name for value in values if value.HasField("func")),
        *(function.name for functions in lists for function in functions),
    ]


def _computes(operation: str) -> bool:
    known = compat.op_definition(operation)
    if known is None or _REACHING.fullmatch(operation):
        return False
    return not known.is_stateful or _STATEFUL.fullmatch(operation) is not None
