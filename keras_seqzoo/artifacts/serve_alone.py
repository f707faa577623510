"""Serves an artifact with TensorFlow alone. Run as a script, in a process of its own.

python -I serve_alone.py ARTIFACT GIVEN.npz ANSWERS.npz

GIVEN holds arrays called "CASE ENDPOINT/NAME", an input each; ANSWERS will hold the outputs
likewise. Where there is an "initial_state", "step" is given whole sequences, and taken over them
from there.
"""

import sys


def main(artifact: str, given: str, answers: str) -> None:
    """Loads `artifact` where neither keras nor keras_seqzoo can be imported, and runs it."""
    sys.modules["keras"] = sys.modules["keras_seqzoo"] = None  # `import` raises ImportError
    import numpy as np
    import tensorflow as tf

    model = tf.saved_model.load(artifact)
    cases, found = {}, {}
    with np.load(given, allow_pickle=False) as inputs:
        for key in inputs.files:
            case, _, name = key.partition("/")
            array = inputs[key]
            if array.dtype.kind == "U":  # TensorFlow's strings are bytes
                array = np.char.encode(array, "utf-8")
            cases.setdefault(case, {})[name] = tf.constant(array)
    for case, tensors in cases.items():
        endpoint = case.split()[1]
        if endpoint == "step" and "initial_state" in model.signatures:
            for name, array in over_time(model, tensors).items():
                found[f"{case}/{name}"] = array
            continue
        served = getattr(model, endpoint)(*tensors.values())
        if not isinstance(served, dict):
            served = {"output": served}
        signature = model.signatures["serving_default" if endpoint == "serve" else endpoint]
        names = list(signature.structured_input_signature[1])
        # TensorFlow spells some names otherwise; a single one can only be that one.
        signed = signature(
            **(dict.fromkeys(names, *tensors.values()) if len(names) == 1 else tensors)
        )
        for (name, one), other in zip(sorted(served.items()), _sorted(signed), strict=True):
            np.testing.assert_array_equal(one.numpy(), other.numpy())
            array = one.numpy()
            if array.dtype == object:
                array = np.char.decode(array.astype(bytes), "utf-8")
            found[f"{case}/{name}"] = array
    np.savez(answers, **found)


def over_time(model, tensors):
    """The outputs of a step over whole sequences, all of them, the state going round."""
    import numpy as np
    import tensorflow as tf

    batch, steps = next(iter(tensors.values())).shape[:2]
    step = model.signatures["step"]
    state = model.signatures["initial_state"](batch=tf.constant(batch, tf.int32))
    again = model.initial_state(tf.constant(batch, tf.int32))
    inputs = [name for name in step.structured_input_signature[1] if name not in state]
    answers = []
    for t in range(steps):
        now = {name: tensor[:, t] for name, tensor in tensors.items()}
        if len(inputs) == 1:
            now = dict.fromkeys(inputs, *now.values())
        answer = step(**now, **state)
        if not t:
            again = model.step(*now.values(), **again)
            for name, one in answer.items():
                np.testing.assert_array_equal(one.numpy(), again[name].numpy())
        state = {name: answer.pop(name) for name in state}
        answers.append({name: one.numpy() for name, one in answer.items()})
    return {name: np.stack([one[name] for one in answers], 1) for name in answers[0]}


def _sorted(outputs):
    return [value for _, value in sorted(outputs.items())]


if __name__ == "__main__":
    main(*sys.argv[1:])
