"""Endpoints of an artifact: functions of tensors and their signatures."""

from __future__ import annotations

import dataclasses
import inspect
import keyword
from collections.abc import Callable, Mapping
from typing import Any

import keras
from keras import ops

from keras_seqzoo.inspection.model_graph import input_of, output_of
from keras_seqzoo.layers import EncoderDecoderModel
from keras_seqzoo.layers.seq2seq.decoder import AttentionMemory, DecoderState
from keras_seqzoo.streaming import Streamer

NUM_BEAMS = 5


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """A callable of an artifact.

    Attributes:
        function: from tensors to a tensor or a dict of them.
        signature: list of `tf.TensorSpec`, one per tensor.
    """

    function: Callable[..., Any]
    signature: list[Any]

    def __post_init__(self):
        """Lets the function take keyword arguments: a dict that was loaded has lost its order."""
        names = [spec.name for spec in self.signature]
        if all(name.isidentifier() and not keyword.iskeyword(name) for name in names):
            kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
            signature = inspect.Signature([inspect.Parameter(name, kind) for name in names])
            object.__setattr__(self, "function", _with_keywords(self.function, signature))


def build_endpoints(
    model: keras.Model, decoder: EncoderDecoderModel | None, streamer: Streamer | None
) -> dict[str, Endpoint]:
    """Builds the endpoints of a model, by name; "serve" is the first.

    Every model has "serve". A causal model also has "initial_state" and "step". An encoder-decoder
    has "serve" with the target as an input, "encode", "step" for one token or reading,
    "generate_greedy", and, where it generates tokens, "generate_beam". Inside an end-to-end model
    it has "generate_text", or "generate" where the sources are readings.

    Args:
        model: `keras.Model`.
        decoder: the encoder-decoder that `model` is or contains; None of other models.
        streamer: the `Streamer` of a causal model; None of other models.
    """
    if decoder is None:
        return {"serve": _serve(model), **_streaming(streamer)}
    endpoints = {"serve": _serve(decoder), **_decoding(decoder)}
    if model is not decoder:
        name = "generate_text" if model.inputs[0].dtype == "string" else "generate"
        endpoints[name] = _serve(model)
    return endpoints


def _with_keywords(function: Callable[..., Any], signature: inspect.Signature) -> Callable:
    def call(*args, **kwargs):
        return function(*signature.bind(*args, **kwargs).args)

    setattr(call, "__signature__", signature)  # noqa: B010  # functions are typed without it
    return call


def _serve(model: keras.Model) -> Endpoint:
    def serve(*inputs):
        return model(keras.tree.pack_sequence_as(input_of(model), list(inputs)), training=False)

    return Endpoint(serve, [_spec(tensor) for tensor in model.inputs])


def _streaming(streamer: Streamer | None) -> dict[str, Endpoint]:
    import tensorflow as tf

    if streamer is None or not streamer.states:
        return {}

    def spec(name, shape, dtype):
        return tf.TensorSpec((None, *shape), dtype, name=name)

    inputs = [spec(name, shape, dtype) for name, shape, dtype in streamer.inputs]
    states = {name: spec(name, row.shape[1:], row.dtype) for name, row in streamer.states.items()}
    structure = output_of(streamer.model)
    output_names = structure if isinstance(structure, dict) else ["output"]

    def step(*tensors):
        state = dict(zip(states, tensors[len(inputs) :], strict=True))
        outputs, state, _ = streamer.step_tensors(list(tensors[: len(inputs)]), state)
        return dict(zip(output_names, outputs, strict=True)) | state

    batch = tf.TensorSpec((), tf.int32, name="batch")
    return {
        "step": Endpoint(step, [*inputs, *states.values()]),
        "initial_state": Endpoint(streamer.broadcast_initial_state, [batch]),
    }


def _decoding(decoder: EncoderDecoderModel) -> dict[str, Endpoint]:
    import tensorflow as tf

    source_spec = _spec(decoder.inputs[0])
    state_specs = _state_specs(decoder)
    target = decoder.inputs[1]
    previous_spec = tf.TensorSpec((None, *target.shape[2:]), target.dtype, name="previous")
    length_spec = tf.TensorSpec((), tf.int32, name="max_length")

    def encode(source):
        return _to_dict(*decoder.encode(source))

    def step(previous, *tensors):
        source, state = _from_dict(dict(zip(state_specs, tensors, strict=True)))
        prediction, state, _ = decoder.step(previous, state, source)
        return {"prediction": prediction} | _state_dict(state)

    def generate_greedy(source, max_length):
        return _decoded(decoder.decode(source, max_length=max_length))

    def generate_beam(source, max_length):
        return _decoded(
            decoder.decode(source, max_length=max_length, strategy="beam", num_beams=NUM_BEAMS)
        )

    endpoints = {
        "encode": Endpoint(encode, [source_spec]),
        "step": Endpoint(step, [previous_spec, *state_specs.values()]),
        "generate_greedy": Endpoint(generate_greedy, [source_spec, length_spec]),
    }
    if decoder.generates_tokens:
        endpoints["generate_beam"] = Endpoint(generate_beam, [source_spec, length_spec])
    return endpoints


def _spec(tensor: Any):
    import tensorflow as tf

    return tf.TensorSpec((None, *tensor.shape[1:]), tensor.dtype, name=tensor.name)


def _decoded(result: Any) -> dict[str, Any]:
    scores = {} if result.scores is None else {"scores": result.scores}
    return {"sequences": result.sequences} | scores


def _to_dict(source: AttentionMemory, state: DecoderState) -> dict[str, Any]:
    """The encoded source and the decoder's state by name, without the parts that are absent."""
    present = {name: tensor for name, tensor in source._asdict().items() if tensor is not None}
    return present | _state_dict(state)


def _state_dict(state: DecoderState) -> dict[str, Any]:
    tensors = {f"state_{number}": tensor for number, tensor in enumerate(state.recurrent, 1)}
    return tensors if isinstance(state.output, tuple) else tensors | {"output": state.output}


def _from_dict(tensors: Mapping[str, Any]) -> tuple[AttentionMemory, DecoderState]:
    """The inverse of `_to_dict`."""
    recurrent = tuple(tensor for name, tensor in tensors.items() if name.startswith("state_"))
    source = AttentionMemory(*(tensors.get(name) for name in AttentionMemory._fields))
    return source, DecoderState(recurrent, tensors.get("output", ()))


def _state_specs(decoder: EncoderDecoderModel) -> dict[str, Any]:
    """The signature of what `encode` returns; an axis that differs between two sources is free."""
    import tensorflow as tf

    source = decoder.inputs[0]
    first, second = (
        _to_dict(*decoder.encode(ops.ones((rows, rows + 1, *source.shape[2:]), source.dtype)))
        for rows in (1, 2)
    )
    specs = {}
    for name, tensor in first.items():
        sizes = zip(tensor.shape, second[name].shape, strict=True)
        shape = [size if size == other else None for size, other in sizes]
        dtype = keras.backend.standardize_dtype(tensor.dtype)
        specs[name] = tf.TensorSpec(shape, dtype, name=name)
    return specs
