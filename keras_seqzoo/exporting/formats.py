"""Formats of artifacts: what each needs, which endpoints it supports, and how it is written.

Except for SavedModels, an artifact has one file per endpoint, with the inputs and outputs of the
endpoint under their names. An output that would have the name of an input, such as the state of a
step, has the prefix "next_".
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import io
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import keras

from keras_seqzoo.errors import ArgumentError, ArtifactError
from keras_seqzoo.exporting.endpoints import Endpoint
from keras_seqzoo.exporting.plan import ExportPlan
from keras_seqzoo.exporting.tracing import for_other_runtimes, in_full_precision

OPSET = 18  # of ONNX: the newest that tf2onnx writes
_LOOP_OVER_TOKENS = "its number of tokens is an input, and torch.export unrolls loops"
_STRINGS = (
    "its inputs are strings, and this format supports numbers only: export the model without "
    "preprocessing around it, or as format='tf_saved_model'"
)
_ANY_TIME = (
    "torch.export unrolls loops, so that the number of steps must be fixed: build the model with "
    "time=, where it has that argument"
)


@dataclasses.dataclass(frozen=True)
class Format:
    """A format that `export` writes.

    Attributes:
        name: str, the value of `export`'s argument `format`.
        write: function of an `ExportPlan` and a folder, which writes the plan's endpoints there.
        suffix: str, of the file of an endpoint; "" where all endpoints share one folder.
        backend: str, the Keras backend that writes it.
        extra: str, the extra of this package that installs what the format needs; "" if nothing.
        modules: mapping of the modules that must be installed to the packages that have them.
        batch: int, the only batch size, or None for any.
        strings: bool, whether it supports strings.
        any_time: bool, whether it supports any number of steps.
        low_precision: bool, whether it computes in float16 and bfloat16.
        unsupported: mapping of the endpoints that it does not support to the reasons.
        tolerance: float, the largest difference allowed from the model, in standard deviations of
            the output: runtimes other than TensorFlow approximate exp and tanh differently.
    """

    name: str
    write: Callable[[ExportPlan, Path], None]
    suffix: str = ""
    backend: str = "tensorflow"
    extra: str = ""
    modules: Mapping[str, str] = dataclasses.field(default_factory=dict)
    batch: int | None = None
    strings: bool = False
    any_time: bool = True
    low_precision: bool = False
    unsupported: Mapping[str, str] = dataclasses.field(default_factory=dict)
    tolerance: float = 1e-4

    def check_installed(self) -> None:
        """Raises `ArgumentError` unless this process can write the format."""
        missing = [
            package
            for module, package in self.modules.items()
            if importlib.util.find_spec(module) is None
        ]
        if missing:
            hint = f"pip install 'keras-seqzoo[{self.extra}]'"
            raise ArgumentError(
                f"`format={self.name!r}` needs packages that are not installed: "
                f"{', '.join(missing)}. Install them with {hint}."
            )
        if keras.backend.backend() != self.backend:
            raise ArgumentError(
                f"`format={self.name!r}` must be written on the {_TITLES[self.backend]} backend. "
                f"Received: {keras.backend.backend()}. Load the .keras file under "
                f"KERAS_BACKEND={self.backend}."
            )

    def select(self, plan: ExportPlan) -> ExportPlan:
        """The plan with the endpoints that the format supports, and the reasons for the others.

        Args:
            plan: `ExportPlan` with all endpoints of a model.

        Raises:
            ArgumentError: if "serve" is not supported.
        """
        left_out = {name: why for name, why in self.unsupported.items() if name in plan.endpoints}
        for name, endpoint in plan.endpoints.items():
            if not self.any_time and any(
                None in tuple(spec.shape)[1:] for spec in endpoint.signature
            ):
                left_out[name] = _ANY_TIME
            if not self.strings and any(spec.dtype.name == "string" for spec in endpoint.signature):
                left_out[name] = _STRINGS
        if "serve" in left_out:
            raise ArgumentError(
                f"`model` must be one that format={self.name!r} supports. Received: "
                f"{plan.model.name!r}, but {left_out['serve']}."
            )
        endpoints = {
            name: endpoint for name, endpoint in plan.endpoints.items() if name not in left_out
        }
        return dataclasses.replace(plan, endpoints=endpoints, left_out=left_out)


_TITLES = {"tensorflow": "TensorFlow", "torch": "PyTorch"}


def write_artifact(plan: ExportPlan, artifact_format: Format, folder: Path) -> None:
    """Writes the endpoints of a plan into a folder.

    Args:
        plan: `ExportPlan`.
        artifact_format: `Format`.
        folder: an empty folder.

    Raises:
        ArtifactError: if the endpoints cannot be traced or converted.
    """
    full_precision = contextlib.nullcontext if artifact_format.low_precision else in_full_precision
    try:
        with full_precision(plan) as traced:
            artifact_format.write(traced, folder)
    except Exception as error:  # converters raise exceptions of many classes
        cause = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ArtifactError(
            f"The artifact cannot be written as {artifact_format.name!r}: {cause}. Nothing was "
            "written."
        ) from error


def write_saved_model(plan: ExportPlan, folder: Path) -> None:
    """Writes all endpoints as one SavedModel."""
    _write_saved_model(plan.model, plan.endpoints, folder)


def _write_saved_model(model: keras.Model, endpoints: Mapping[str, Endpoint], folder: Path) -> None:
    archive: Any = keras.export.ExportArchive()
    archive.track(model)
    for name, endpoint in endpoints.items():
        archive.add_endpoint(name, endpoint.function, input_signature=endpoint.signature)
    archive.write_out(str(folder), verbose=False)


def write_onnx(plan: ExportPlan, folder: Path) -> None:
    """Writes an ONNX file for each endpoint, of any batch size and number of steps."""
    import onnx
    import tensorflow as tf
    import tf2onnx

    for name, endpoint in plan.endpoints.items():
        endpoint = for_other_runtimes(endpoint)
        traced = tf.function(endpoint.function, input_signature=endpoint.signature, autograph=False)
        with _silenced():
            proto, _ = tf2onnx.convert.from_function(
                traced,
                endpoint.signature,
                opset=OPSET,
                custom_op_handlers={"SelectV2": (_convert_where, [])},
            )
        _name_free_axes(proto.graph)
        # tf2onnx leaves operations that it does not support in the graph, and only logs them.
        onnx.checker.check_model(proto, full_check=True)
        onnx.save(proto, folder / f"{name}.onnx")


def _convert_where(context, node, name, arguments) -> None:
    """Converts `tf.where`: tf2onnx multiplies by 0 and 1, so that a NaN not selected stays NaN."""
    node.type = "Where"


def _name_free_axes(graph) -> None:
    """Calls the first axis of every input "batch", and each other free axis by input and index."""
    for tensor in graph.input:
        for axis, size in enumerate(tensor.type.tensor_type.shape.dim):
            if size.HasField("dim_param") or not size.HasField("dim_value"):
                size.dim_param = "batch" if axis == 0 else f"{tensor.name}_{axis}"


def write_litert(plan: ExportPlan, folder: Path) -> None:
    """Writes a .tflite file of built-in operations for each endpoint, of any number of steps."""
    import tensorflow as tf

    for name, endpoint in plan.endpoints.items():
        portable = {name: for_other_runtimes(endpoint, batch=1)}
        with tempfile.TemporaryDirectory() as saved, _silenced():
            _write_saved_model(plan.model, portable, Path(saved))
            converter = tf.lite.TFLiteConverter.from_saved_model(saved, signature_keys=[name])
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
            (folder / f"{name}.tflite").write_bytes(converter.convert())


def write_openvino(plan: ExportPlan, folder: Path) -> None:
    """Writes an .xml and a .bin file for each endpoint, of any batch size and number of steps."""
    import openvino  # pyright: ignore[reportMissingImports]  # an extra

    for name, endpoint in plan.endpoints.items():
        with tempfile.TemporaryDirectory() as saved, _silenced():
            _write_saved_model(plan.model, {name: for_other_runtimes(endpoint)}, Path(saved))
            # `convert_model` does the same, but also sends telemetry.
            graph = openvino.Core().read_model(saved)
            openvino.save_model(graph, folder / f"{name}.xml", compress_to_fp16=False)


def write_torch(plan: ExportPlan, folder: Path) -> None:
    """Writes a .pt2 file of `torch.export` for each endpoint, of fixed shapes."""
    import torch  # pyright: ignore[reportMissingImports]  # an extra

    class EndpointModule(torch.nn.Module):
        def __init__(self, function):
            super().__init__()
            self.model, self.function = plan.model, function

        def forward(self, *inputs):
            return self.function(*inputs)

    for name, endpoint in plan.endpoints.items():
        endpoint = for_other_runtimes(endpoint, batch=1)
        examples = tuple(
            torch.ones(tuple(spec.shape), dtype=getattr(torch, spec.dtype.name))
            for spec in endpoint.signature
        )
        with torch.no_grad(), _silenced():
            module = EndpointModule(endpoint.function).eval()
            program = torch.export.export(module, examples, strict=False)
            torch.export.save(program, folder / f"{name}.pt2")


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    """Context without warnings, logs and output of converters and their dependencies."""
    disabled_level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled_level)


FORMATS = {
    artifact_format.name: artifact_format
    for artifact_format in (
        Format(
            "tf_saved_model",
            write_saved_model,
            strings=True,
            low_precision=True,
            tolerance=0.0,
        ),
        Format(
            "onnx",
            write_onnx,
            ".onnx",
            extra="onnx",
            modules={"onnx": "onnx", "tf2onnx": "tf2onnx", "onnxruntime": "onnxruntime"},
        ),
        Format(
            "litert",
            write_litert,
            ".tflite",
            extra="litert",
            modules={"ai_edge_litert": "ai-edge-litert"},
            batch=1,
            tolerance=1e-3,
        ),
        Format(
            "openvino",
            write_openvino,
            ".xml",
            extra="openvino",
            modules={"openvino": "openvino"},
        ),
        Format(
            "torch",
            write_torch,
            ".pt2",
            backend="torch",
            any_time=False,
            batch=1,
            extra="torch",
            modules={"torch": "torch"},
            unsupported=dict.fromkeys(
                ("generate_greedy", "generate_beam", "generate"), _LOOP_OVER_TOKENS
            ),
        ),
    )
}
