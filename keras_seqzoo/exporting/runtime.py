"""Serves an artifact with its runtime alone. Run as a script, in a process of its own.

python -I runtime.py FORMAT ARTIFACT GIVEN.npz ANSWERS.npz

GIVEN holds arrays called "CASE ENDPOINT/NAME", an input each; ANSWERS will hold the outputs
likewise. "over_time" is given whole sequences, and takes "step" over them from "initial_state".
"""

import re
import sys
from pathlib import Path

AFTER, OVER_TIME = "next_", "over_time"


def main(form: str, artifact: str, given: str, answers: str) -> None:
    """Loads `artifact` where neither keras nor keras_seqzoo can be imported, and runs it."""
    blocked = ("keras", "keras_seqzoo", "tensorflow", "torch")
    own = {"tf_saved_model": "tensorflow", "torch": "torch"}.get(form)
    for name in blocked:
        if name != own:
            sys.modules[name] = None  # `import` raises ImportError
    import numpy as np

    ask = RUNTIMES[form](Path(artifact))
    cases, found = {}, {}
    with np.load(given, allow_pickle=False) as inputs:
        for key in inputs.files:
            case, _, name = key.partition("/")
            cases.setdefault(case, {})[name] = inputs[key]
    for case, arrays in cases.items():
        endpoint = case.split()[1]
        said = over_time(ask, arrays) if endpoint == OVER_TIME else ask(endpoint, arrays)
        for name, array in said.items():
            found[f"{case}/{name}"] = array
    np.savez(answers, **found)


def tensorflow(artifact):
    """Each endpoint both as an attribute and as a signature, which must say the same."""
    import numpy as np
    import tensorflow as tf

    model = tf.saved_model.load(str(artifact))

    def ask(endpoint, arrays):
        signature = model.signatures["serving_default" if endpoint == "serve" else endpoint]
        specs = signature.structured_input_signature[1]
        names = list(specs)
        # TensorFlow spells some names otherwise: those that are left over, in their order.
        left = iter([name for name in names if name not in arrays])
        tensors = {(name if name in names else next(left)): array for name, array in arrays.items()}
        tensors = {name: _tensor(array, specs[name].dtype) for name, array in tensors.items()}
        # States by name, since a dict that was loaded has another order.
        states = {name: one for name, one in tensors.items() if name.startswith("state_")}
        inputs = [one for name, one in tensors.items() if name not in states]
        served = getattr(model, endpoint)(*inputs, **states)
        served = served if isinstance(served, dict) else {"output": served}
        signed = sorted(signature(**tensors).items())
        for (_, one), (_, other) in zip(sorted(served.items()), signed, strict=True):
            _check_same(_array(one), _array(other))
        return {name: _array(tensor) for name, tensor in served.items()}

    def _check_same(one, other):
        if one.dtype.kind == "f":  # two graphs of the same operations may round otherwise
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
        else:
            np.testing.assert_array_equal(one, other)

    def _tensor(array, dtype):
        if array.dtype.kind == "U":  # TensorFlow's strings are bytes
            array = np.char.encode(array, "utf-8")
        return tf.cast(array, dtype) if dtype.is_floating else tf.constant(array, dtype)

    def _array(tensor):
        if tensor.dtype == tf.bfloat16:
            tensor = tf.cast(tensor, tf.float32)
        array = tensor.numpy()
        return np.char.decode(array.astype(bytes), "utf-8") if array.dtype == object else array

    return ask


def onnx(artifact):
    """One session for each endpoint."""
    import onnxruntime

    sessions = {}

    def ask(endpoint, arrays):
        if endpoint not in sessions:
            sessions[endpoint] = onnxruntime.InferenceSession(
                artifact / f"{endpoint}.onnx", providers=["CPUExecutionProvider"]
            )
        session = sessions[endpoint]
        taken = [one.name for one in session.get_inputs()]
        names = [one.name for one in session.get_outputs()]
        outputs = session.run(None, _given(arrays, taken))
        return _by_name(taken, dict(zip(names, outputs, strict=True)))

    return ask


def litert(artifact):
    """One interpreter for each endpoint."""
    from ai_edge_litert.interpreter import Interpreter

    runners = {}

    def ask(endpoint, arrays):
        if endpoint not in runners:
            interpreter = Interpreter(str(artifact / f"{endpoint}.tflite"))
            (signature,) = interpreter.get_signature_list()
            runners[endpoint] = interpreter.get_signature_runner(signature), interpreter
        runner, _ = runners[endpoint]
        taken = list(runner.get_input_details())
        return _by_name(taken, runner(**_given(arrays, taken)))

    return ask


def openvino(artifact):
    """One compiled model for each endpoint."""
    from openvino import Core

    core, compiled = Core(), {}

    def ask(endpoint, arrays):
        if endpoint not in compiled:
            # By itself it takes bfloat16 where the processor knows that.
            exact = {"INFERENCE_PRECISION_HINT": "f32"}
            compiled[endpoint] = core.compile_model(artifact / f"{endpoint}.xml", "CPU", exact)
        model = compiled[endpoint]
        taken = [one.any_name for one in model.inputs]
        answers = model(_given(arrays, taken))
        return _by_name(taken, {one.any_name: answers[one].copy() for one in model.outputs})

    return ask


def torch(artifact):
    """One exported program for each endpoint."""
    import torch

    programs = {}

    def ask(endpoint, arrays):
        if endpoint not in programs:
            programs[endpoint] = torch.export.load(str(artifact / f"{endpoint}.pt2")).module()
        with torch.no_grad():
            tensors = [torch.tensor(array) for array in _given(arrays, list(arrays)).values()]
            answers = programs[endpoint](*tensors)
        return _by_name(arrays, {name: one.numpy() for name, one in answers.items()})

    return ask


RUNTIMES = {
    "tf_saved_model": tensorflow,
    "onnx": onnx,
    "litert": litert,
    "openvino": openvino,
    "torch": torch,
}


def over_time(ask, arrays):
    """The outputs of a step over whole sequences, all of them, the state going round."""
    import numpy as np

    batch, steps = next(iter(arrays.values())).shape[:2]
    state = ask("initial_state", {"batch": np.array(batch, np.int32)})
    answers = []
    for t in range(steps):
        answer = ask("step", {name: array[:, t] for name, array in arrays.items()} | state)
        state = {name: answer.pop(name) for name in state}
        answers.append(answer)
    return {name: np.stack([one[name] for one in answers], 1) for name in answers[0]}


def _given(arrays, taken):
    """What a runtime takes, in its spelling and, of low precision, in full."""
    import numpy as np

    spelled = {re.sub(r"\W", "_", name): array for name, array in arrays.items()}
    found = {name: spelled[name] for name in taken}
    return {
        name: array.astype(np.float32) if array.dtype == np.float16 else array
        for name, array in found.items()
    }


def _by_name(taken, outputs):
    """Outputs by the names that the model itself gives them."""
    return {
        name[len(AFTER) :] if name.startswith(AFTER) and name[len(AFTER) :] in taken else name: one
        for name, one in outputs.items()
    }


if __name__ == "__main__":
    main(*sys.argv[1:])
