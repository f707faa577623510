"""Import of TensorFlow without its start-up messages."""

from __future__ import annotations

import os
import sys
import tempfile


def load_tensorflow() -> None:
    """Imports TensorFlow, and shows its messages on standard error only if the import fails.

    C++ code writes some of the messages before it reads the log level, so that the file descriptor
    itself is redirected.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as messages:
        os.dup2(messages.fileno(), 2)
        try:
            import tensorflow as tf
        except BaseException:
            messages.seek(0)
            os.write(stderr, messages.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
    tf.get_logger().setLevel("ERROR")
