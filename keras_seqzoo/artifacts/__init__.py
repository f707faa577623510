"""Model files and artifacts. The only place that knows their formats."""

from keras_seqzoo.artifacts.export import export
from keras_seqzoo.artifacts.load import load
from keras_seqzoo.artifacts.stream import Streamer, stream
from keras_seqzoo.artifacts.verify import Parity

__all__ = ["Parity", "Streamer", "export", "load", "stream"]
