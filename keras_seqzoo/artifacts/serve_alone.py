"""Serves an artifact with TensorFlow alone. Run as a script, in a process of its own.

python -I serve_alone.py ARTIFACT GIVEN.npz ANSWERS.npz

GIVEN holds arrays called "CASE ENDPOINT/NAME", an input each; ANSWERS will hold the outputs
likewise.
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


def _sorted(outputs):
    return [value for _, value in sorted(outputs.items())]


if __name__ == "__main__":
    main(*sys.argv[1:])
