"""What an artifact can be asked: each endpoint as a function of tensors and their signature."""

from __future__ import annotations

import dataclasses
import inspect
import keyword
from collections.abc import Callable, Mapping
from typing import Any

import keras
from keras import ops

from keras_seqzoo.inspection.model_graph import decoder_of, input_of, output_of
from keras_seqzoo.layers import EncoderDecoderModel
from keras_seqzoo.layers.seq2seq.decoder import AttentionMemory, DecoderState
from keras_seqzoo.streaming.stream import Streamer, streamer_of

NUM_BEAMS = 5


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """One thing that an artifact can be asked.

    Attributes:
        function: from tensors to a tensor or a dict of them.
        signature: list of `tf.TensorSpec`, one per tensor.
    """

    function: Callable[..., Any]
    signature: list[Any]

    def __post_init__(self):
        """Lets tensors be given by name: a dict that was loaded has lost its order."""
        names = [spec.name for spec in self.signature]
        if all(name.isidentifier() and not keyword.iskeyword(name) for name in names):
            parameter, kind = inspect.Parameter, inspect.Parameter.POSITIONAL_OR_KEYWORD
            signature = inspect.Signature([parameter(name, kind) for name in names])
            object.__setattr__(self, "function", _by_name(self.function, signature))


def endpoints(model: keras.Model) -> dict[str, Endpoint]:
    """The endpoints of a model by name; "serve" is the first.

    A model is asked what it gives; one that can go step by step also for the "initial_state" of
    some rows, and for a "step" from a state to the next. An encoder-decoder is asked what it gives
    with its target given; and "encode", then "step" for each token, and "generate_greedy" and
    "generate_beam" for all of them; with vocabularies around it, "generate_text" too.

    Args:
        model: `keras.Model`.
    """
    network = decoder_of(model)
    if network is None:
        return {"serve": _whole(model), **_streaming(streamer_of(model))}
    found = {"serve": _whole(network), **_decoding(network)}
    if model is not network:
        name = "generate_text" if model.inputs[0].dtype == "string" else "generate"
        found[name] = _whole(model)
    return found


def _by_name(function: Callable[..., Any], signature: inspect.Signature) -> Callable[..., Any]:
    def call(*args, **kwargs):
        return function(*signature.bind(*args, **kwargs).args)

    call.__signature__ = signature
    return call


def _whole(model: keras.Model) -> Endpoint:
    def serve(*inputs):
        return model(keras.tree.pack_sequence_as(input_of(model), list(inputs)), training=False)

    return Endpoint(serve, [_spec(tensor) for tensor in model.inputs])


def _streaming(streamer: Streamer | None) -> dict[str, Endpoint]:
    import tensorflow as tf

    if streamer is None or not streamer.states:
        return {}

    def spec(name, shape, dtype):
        return tf.TensorSpec((None, *shape), dtype, name=name)

    inputs = [spec(*one) for one in streamer.inputs]
    states = {name: spec(name, row.shape[1:], row.dtype) for name, row in streamer.states.items()}

    def step(*tensors):
        given, state = tensors[: len(inputs)], tensors[len(inputs) :]
        said, after, _ = streamer.compute(list(given), dict(zip(states, state, strict=True)))
        output = output_of(streamer.model)
        names = output if isinstance(output, dict) else ["output"]
        return dict(zip(names, said, strict=True)) | after

    batch = tf.TensorSpec((), tf.int32, name="batch")
    return {
        "step": Endpoint(step, [*inputs, *states.values()]),
        "initial_state": Endpoint(streamer.begin, [batch]),
    }


def _decoding(network: EncoderDecoderModel) -> dict[str, Endpoint]:
    import tensorflow as tf

    source = _spec(network.inputs[0])
    states = _state_specs(network)
    before = network.inputs[1]
    so_far = tf.TensorSpec((None, *before.shape[2:]), before.dtype, name="before")
    length = tf.TensorSpec((), tf.int32, name="max_length")

    def encode(source):
        return _named(*network.encode(source))

    def step(before, *state):
        known = dict(zip(states, state, strict=True))
        looked_at = AttentionMemory(*map(known.get, AttentionMemory._fields))
        said, after, _ = network.step(before, _state(known), looked_at)
        return {"said": said} | _carried(after)

    def greedy(source, max_length):
        return _answers(network.decode(source, max_length=max_length))

    def beam(source, max_length):
        said = network.decode(source, max_length=max_length, strategy="beam", num_beams=NUM_BEAMS)
        return _answers(said)

    found = {
        "encode": Endpoint(encode, [source]),
        "step": Endpoint(step, [so_far, *states.values()]),
        "generate_greedy": Endpoint(greedy, [source, length]),
    }
    if network.generates_tokens:
        found["generate_beam"] = Endpoint(beam, [source, length])
    return found


def _spec(tensor: Any):
    import tensorflow as tf

    return tf.TensorSpec((None, *tensor.shape[1:]), tensor.dtype, name=tensor.name)


def _answers(said: Any) -> dict[str, Any]:
    scores = {} if said.scores is None else {"scores": said.scores}
    return {"sequences": said.sequences} | scores


def _named(source: AttentionMemory, state: DecoderState) -> dict[str, Any]:
    """What a decoder looks at and carries, by names, without what it does not have."""
    found = {name: tensor for name, tensor in source._asdict().items() if tensor is not None}
    return found | _carried(state)


def _carried(state: DecoderState) -> dict[str, Any]:
    found = {f"state_{number}": one for number, one in enumerate(state.recurrent, 1)}
    return found if isinstance(state.output, tuple) else found | {"output": state.output}


def _state(known: Mapping[str, Any]) -> DecoderState:
    recurrent = tuple(one for name, one in known.items() if name.startswith("state_"))
    return DecoderState(recurrent, known.get("output", ()))


def _state_specs(network: EncoderDecoderModel) -> dict[str, Any]:
    """What `encode` gives, by name: an axis is free that differs between two sources."""
    import tensorflow as tf

    source = network.inputs[0]
    one, other = (
        _named(*network.encode(ops.ones((rows, rows + 1, *source.shape[2:]), source.dtype)))
        for rows in (1, 2)
    )
    found = {}
    for name, tensor in one.items():
        pairs = zip(tensor.shape, other[name].shape, strict=True)
        shape = [size if size == beside else None for size, beside in pairs]
        dtype = keras.backend.standardize_dtype(tensor.dtype)
        found[name] = tf.TensorSpec(shape, dtype, name=name)
    return found
