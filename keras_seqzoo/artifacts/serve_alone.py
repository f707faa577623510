"""Serves an artifact with TensorFlow alone. Run as a script, in a process of its own.

python -I serve_alone.py ARTIFACT GIVEN.npz ANSWERS.npz
"""

import sys


def main(artifact: str, given: str, answers: str) -> None:
    """Loads `artifact` where neither keras nor keras_seqzoo can be imported, and runs it."""
    sys.modules["keras"] = sys.modules["keras_seqzoo"] = None  # `import` raises ImportError
    import numpy as np
    import tensorflow as tf

    model = tf.saved_model.load(artifact)
    signature = model.signatures["serving_default"]
    (name,) = signature.structured_input_signature[1]
    found = []
    with np.load(given, allow_pickle=False) as inputs:
        for key in inputs.files:
            x = tf.constant(inputs[key])
            served = model.serve(x).numpy()
            (signed,) = signature(**{name: x}).values()
            np.testing.assert_array_equal(served, signed.numpy())
            found.append(served)
    np.savez(answers, *found)


if __name__ == "__main__":
    main(*sys.argv[1:])
