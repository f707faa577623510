"""Runs the endpoints of an artifact in the runtime of its format, without keras.

Run as a script, in a process of its own:

    python -I runtime.py FORMAT ARTIFACT INPUTS.npz OUTPUTS.npz

INPUTS holds one array per input, called "CASE ENDPOINT/NAME", and OUTPUTS gets one array per
output, called likewise. The endpoint "over_time" takes whole sequences: it runs "step" over them,
starting from "initial_state".
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

NEXT, OVER_TIME = "next_", "over_time"

Arrays = dict[str, Any]
Run = Callable[[str, Arrays], Arrays]  # from an endpoint's name and its inputs to its outputs


def main(artifact_format: str, artifact: str, inputs: str, outputs: str) -> None:
    """Loads `artifact` where neither keras nor keras_seqzoo can be imported, and runs it."""
    runtime, load = RUNTIMES[artifact_format]
    modules: dict[str, Any] = sys.modules
    for name in ("keras", "keras_seqzoo", "tensorflow", "torch"):
        if name != runtime:
            modules[name] = None  # `import` then raises ImportError
    import numpy as np

    run = load(importlib.import_module(runtime), Path(artifact))
    cases: dict[str, Arrays] = {}
    with np.load(inputs, allow_pickle=False) as file:
        for key in file.files:
            case, _, name = key.partition("/")
            cases.setdefault(case, {})[name] = file[key]
    results: Arrays = {}
    for case, arrays in cases.items():
        endpoint = case.split()[1]
        result = run_over_time(run, arrays) if endpoint == OVER_TIME else run(endpoint, arrays)
        results |= {f"{case}/{name}": array for name, array in result.items()}
    np.savez(outputs, **results)


def load_saved_model(tf: Any, artifact: Path) -> Run:
    """Runs each endpoint both as an attribute and as a signature, whose outputs must agree."""
    import numpy as np

    model = tf.saved_model.load(str(artifact))

    def run(endpoint, arrays):
        signature = model.signatures["serving_default" if endpoint == "serve" else endpoint]
        specs = signature.structured_input_signature[1]
        names = list(specs)
        # TensorFlow changes some names: the names that remain match in order.
        remaining = iter([name for name in names if name not in arrays])
        tensors = {
            (name if name in names else next(remaining)): array for name, array in arrays.items()
        }
        tensors = {name: to_tensor(array, specs[name].dtype) for name, array in tensors.items()}
        # States go by name, since a dict that was loaded has another order.
        states = {name: tensor for name, tensor in tensors.items() if name.startswith("state_")}
        inputs = [tensor for name, tensor in tensors.items() if name not in states]
        outputs = getattr(model, endpoint)(*inputs, **states)
        outputs = outputs if isinstance(outputs, dict) else {"output": outputs}
        of_signature = sorted(signature(**tensors).items())
        for (_, output), (_, other) in zip(sorted(outputs.items()), of_signature, strict=True):
            check_equal(to_array(output), to_array(other))
        return {name: to_array(tensor) for name, tensor in outputs.items()}

    def check_equal(array, other):
        if array.dtype.kind == "f":  # two graphs of the same operations may round differently
            np.testing.assert_allclose(array, other, rtol=1e-4, atol=1e-5)
        else:
            np.testing.assert_array_equal(array, other)

    def to_tensor(array, dtype):
        if array.dtype.kind == "U":  # TensorFlow's strings are bytes
            array = np.char.encode(array, "utf-8")
        return tf.cast(array, dtype) if dtype.is_floating else tf.constant(array, dtype)

    def to_array(tensor):
        if tensor.dtype == tf.bfloat16:
            tensor = tf.cast(tensor, tf.float32)
        array = tensor.numpy()
        return np.char.decode(array.astype(bytes), "utf-8") if array.dtype == object else array

    return run


def load_onnx(onnxruntime: Any, artifact: Path) -> Run:
    """Runs one ONNX Runtime session per endpoint."""
    sessions = {}

    def run(endpoint, arrays):
        if endpoint not in sessions:
            sessions[endpoint] = onnxruntime.InferenceSession(
                artifact / f"{endpoint}.onnx", providers=["CPUExecutionProvider"]
            )
        session = sessions[endpoint]
        input_names = [node.name for node in session.get_inputs()]
        output_names = [node.name for node in session.get_outputs()]
        outputs = session.run(None, _inputs(arrays, input_names))
        return _model_outputs(input_names, dict(zip(output_names, outputs, strict=True)))

    return run


def load_litert(litert: Any, artifact: Path) -> Run:
    """Runs one LiteRT interpreter per endpoint."""
    runners = {}

    def run(endpoint, arrays):
        if endpoint not in runners:
            interpreter = litert.Interpreter(str(artifact / f"{endpoint}.tflite"))
            (signature,) = interpreter.get_signature_list()
            runners[endpoint] = interpreter.get_signature_runner(signature), interpreter
        runner, _ = runners[endpoint]
        input_names = list(runner.get_input_details())
        return _model_outputs(input_names, runner(**_inputs(arrays, input_names)))

    return run


def load_openvino(openvino: Any, artifact: Path) -> Run:
    """Runs one compiled OpenVINO model per endpoint."""
    core, models = openvino.Core(), {}

    def run(endpoint, arrays):
        if endpoint not in models:
            # By default OpenVINO computes in bfloat16 where the processor supports it.
            options = {"INFERENCE_PRECISION_HINT": "f32"}
            models[endpoint] = core.compile_model(artifact / f"{endpoint}.xml", "CPU", options)
        model = models[endpoint]
        input_names = [node.any_name for node in model.inputs]
        outputs = model(_inputs(arrays, input_names))
        outputs = {node.any_name: outputs[node].copy() for node in model.outputs}
        return _model_outputs(input_names, outputs)

    return run


def load_torch(torch: Any, artifact: Path) -> Run:
    """Runs one exported PyTorch program per endpoint."""
    programs = {}

    def run(endpoint, arrays):
        if endpoint not in programs:
            programs[endpoint] = torch.export.load(str(artifact / f"{endpoint}.pt2")).module()
        with torch.no_grad():
            tensors = [torch.tensor(array) for array in _inputs(arrays, list(arrays)).values()]
            outputs = programs[endpoint](*tensors)
        outputs = {name: tensor.numpy() for name, tensor in outputs.items()}
        return _model_outputs(arrays, outputs)

    return run


RUNTIMES: dict[str, tuple[str, Callable[[Any, Path], Run]]] = {
    "tf_saved_model": ("tensorflow", load_saved_model),
    "onnx": ("onnxruntime", load_onnx),
    "litert": ("ai_edge_litert.interpreter", load_litert),
    "openvino": ("openvino", load_openvino),
    "torch": ("torch", load_torch),
}


def run_over_time(run: Run, arrays: Arrays) -> Arrays:
    """Runs "step" over whole sequences, and stacks its outputs along the time axis."""
    import numpy as np

    batch, time = next(iter(arrays.values())).shape[:2]
    state = run("initial_state", {"batch": np.array(batch, np.int32)})
    steps = []
    for t in range(time):
        outputs = run("step", {name: array[:, t] for name, array in arrays.items()} | state)
        state = {name: outputs.pop(name) for name in state}
        steps.append(outputs)
    return {name: np.stack([outputs[name] for outputs in steps], 1) for name in steps[0]}


def _inputs(arrays: Arrays, input_names: Iterable[str]) -> Arrays:
    """The inputs of a runtime by its own names, with float32 in place of float16."""
    import numpy as np

    portable = {re.sub(r"\W", "_", name): array for name, array in arrays.items()}
    inputs = {name: portable[name] for name in input_names}
    return {
        name: array.astype(np.float32) if array.dtype == np.float16 else array
        for name, array in inputs.items()
    }


def _model_outputs(input_names: Iterable[str], outputs: Arrays) -> Arrays:
    """Outputs by the names that the model gives them, without the prefix "next_"."""
    states = {NEXT + name: name for name in input_names}
    return {states.get(name, name): array for name, array in outputs.items()}


if __name__ == "__main__":
    main(*sys.argv[1:])
