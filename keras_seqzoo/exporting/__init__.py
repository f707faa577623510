"""Export of models as artifacts that run without keras_seqzoo, verified in their own runtimes."""

from keras_seqzoo.exporting.export import export
from keras_seqzoo.exporting.verification import Parity

__all__ = ["Parity", "export"]
