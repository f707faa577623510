"""Causal models on a stream: one time step a call, with an explicit state."""

from keras_seqzoo.streaming.stream import Streamer, stream

__all__ = ["Streamer", "stream"]
