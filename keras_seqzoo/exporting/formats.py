"""The formats that an artifact can have: what each needs, what it cannot hold, and who writes it.

Beside SavedModels, a format has a file for each endpoint, which takes and gives what the endpoint
does, by the same names; an output that would be called as an input is (the state, of a step) is
"next_" and that name.
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

import keras

from keras_seqzoo.errors import ArgumentError
from keras_seqzoo.exporting.endpoints import Endpoint
from keras_seqzoo.exporting.tracing import for_other_runtimes

OPSET = 18  # of ONNX: the newest that tf2onnx writes
_TOKENS = "it is told how many tokens to say, and torch.export unrolls loops"
_STRINGS = (
    "it takes strings, and this format holds numbers only: export the model without names around "
    "it, or as format='tf_saved_model'"
)
_STEPS = (
    "torch.export unrolls loops, so that the number of steps must be fixed: build the model with "
    "time=, where it takes that"
)


@dataclasses.dataclass(frozen=True)
class Format:
    """A format that `export` writes.

    Attributes:
        name: str, as given to `export`.
        write: from a model, its endpoints by name and a folder: writes them there.
        ending: str, of an endpoint's file; "" where there is one folder for all.
        backend: str, Keras's, on which the model must be.
        extra: str, of the package, which installs what is needed; "" where nothing is.
        modules: mapping of modules that must be there to the packages that bring them.
        rows: int, the only batch size there is, or None for any.
        strings: bool, whether it holds strings.
        any_time: bool, whether it takes any number of steps.
        low_precision: bool, whether it computes in float16 and bfloat16.
        without: mapping of endpoints that it cannot hold to the reasons.
        tolerance: float, in units of the output's deviation, how far its runtime may be off: others
            than TensorFlow have other approximations of exp and tanh.
    """

    name: str
    write: Callable[[keras.Model, Mapping[str, Endpoint], Path], None]
    ending: str = ""
    backend: str = "tensorflow"
    extra: str = ""
    modules: Mapping[str, str] = dataclasses.field(default_factory=dict)
    rows: int | None = None
    strings: bool = False
    any_time: bool = True
    low_precision: bool = False
    without: Mapping[str, str] = dataclasses.field(default_factory=dict)
    tolerance: float = 1e-4

    def check(self) -> None:
        """Raises `ArgumentError` unless this process can write it."""
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

    def left_out(self, endpoints: Mapping[str, Endpoint]) -> dict[str, str]:
        """The endpoints that it cannot hold, and why.

        Args:
            endpoints: mapping of name to `Endpoint`.
        """
        found = {name: why for name, why in self.without.items() if name in endpoints}
        if not self.any_time:
            found |= {
                name: _STEPS
                for name, endpoint in endpoints.items()
                if any(None in tuple(spec.shape)[1:] for spec in endpoint.signature)
            }
        if not self.strings:
            found |= {
                name: _STRINGS
                for name, endpoint in endpoints.items()
                if any(spec.dtype.name == "string" for spec in endpoint.signature)
            }
        return found


_TITLES = {"tensorflow": "TensorFlow", "torch": "PyTorch"}


def write_saved_model(model: keras.Model, endpoints: Mapping[str, Endpoint], folder: Path) -> None:
    """Writes all endpoints as one SavedModel."""
    archive = keras.export.ExportArchive()
    archive.track(model)
    for name, endpoint in endpoints.items():
        archive.add_endpoint(name, endpoint.function, input_signature=endpoint.signature)
    archive.write_out(str(folder), verbose=False)


def write_onnx(model: keras.Model, endpoints: Mapping[str, Endpoint], folder: Path) -> None:
    """Writes an ONNX file for each endpoint; batch and time stay free."""
    import onnx
    import tensorflow as tf
    import tf2onnx

    for name, endpoint in endpoints.items():
        endpoint = for_other_runtimes(endpoint)
        traced = tf.function(endpoint.function, input_signature=endpoint.signature, autograph=False)
        with _quietly():
            proto, _ = tf2onnx.convert.from_function(
                traced,
                endpoint.signature,
                opset=OPSET,
                custom_op_handlers={"SelectV2": (_where, [])},
            )
        _name_axes(proto.graph)
        # What it does not know, tf2onnx tells the log, and leaves in the graph.
        onnx.checker.check_model(proto, full_check=True)
        onnx.save(proto, folder / f"{name}.onnx")


def _where(context, node, name, arguments) -> None:
    """A choice stays one; tf2onnx multiplies by 0 and 1, which makes NaN of a NaN not chosen."""
    node.type = "Where"


def _name_axes(graph) -> None:
    """Calls the first axis of every input "batch"; other free ones have names of their own."""
    for tensor in graph.input:
        for axis, size in enumerate(tensor.type.tensor_type.shape.dim):
            if size.HasField("dim_param") or not size.HasField("dim_value"):
                size.dim_param = "batch" if axis == 0 else f"{tensor.name}_{axis}"


def write_litert(model: keras.Model, endpoints: Mapping[str, Endpoint], folder: Path) -> None:
    """Writes a .tflite file of built-in operations for each endpoint; time stays free."""
    import tensorflow as tf

    for name, endpoint in endpoints.items():
        one = {name: for_other_runtimes(endpoint, rows=1)}
        with tempfile.TemporaryDirectory() as saved, _quietly():
            write_saved_model(model, one, Path(saved))
            converter = tf.lite.TFLiteConverter.from_saved_model(saved, signature_keys=[name])
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
            (folder / f"{name}.tflite").write_bytes(converter.convert())


def write_openvino(model: keras.Model, endpoints: Mapping[str, Endpoint], folder: Path) -> None:
    """Writes an .xml file and its .bin for each endpoint; batch and time stay free."""
    import openvino

    for name, endpoint in endpoints.items():
        with tempfile.TemporaryDirectory() as saved, _quietly():
            write_saved_model(model, {name: for_other_runtimes(endpoint)}, Path(saved))
            # `convert_model` would do the same, and report to its makers that it did.
            graph = openvino.Core().read_model(saved)
            openvino.save_model(graph, folder / f"{name}.xml", compress_to_fp16=False)


def write_torch(model: keras.Model, endpoints: Mapping[str, Endpoint], folder: Path) -> None:
    """Writes a .pt2 file of `torch.export` for each endpoint; nothing stays free."""
    import torch

    class Asked(torch.nn.Module):
        def __init__(self, function):
            super().__init__()
            self.model, self.function = model, function

        def forward(self, *inputs):
            return self.function(*inputs)

    for name, endpoint in endpoints.items():
        endpoint = for_other_runtimes(endpoint, rows=1)
        examples = tuple(
            torch.ones(tuple(spec.shape), dtype=getattr(torch, spec.dtype.name))
            for spec in endpoint.signature
        )
        with torch.no_grad(), _quietly():
            module = Asked(endpoint.function).eval()
            program = torch.export.export(module, examples, strict=False)
            torch.export.save(program, folder / f"{name}.pt2")


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Inside, converters keep to themselves what they think of their dependencies."""
    before = logging.root.manager.disable
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
        logging.disable(before)


FORMATS = {
    one.name: one
    for one in (
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
            rows=1,
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
            rows=1,
            extra="torch",
            modules={"torch": "torch"},
            without=dict.fromkeys(("generate_greedy", "generate_beam", "generate"), _TOKENS),
        ),
    )
}
