"""Streaming of causal models: one time step per call, with an explicit state."""

from keras_seqzoo.streaming.state import CannotStep
from keras_seqzoo.streaming.stream import Streamer, stream

__all__ = ["CannotStep", "Streamer", "stream"]
