"""Streaming rules: how each layer and operation computes one time step, and why others cannot.

A rule is called with the `LayerStates`, the layer, and the arguments of the layer's call in the
graph, in which tensors are `TimeStep` or `Summary`. It returns the layer's output as those.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from keras_seqzoo import layers
from keras_seqzoo.streaming import pooling, recurrent
from keras_seqzoo.streaming.state import CannotStep, LayerStates, Summary, TimeStep, leaves
from keras_seqzoo.utils import compat


def apply_to_step(states: LayerStates, layer: Any, /, *args, **kwargs):
    """Calls a layer that acts along the last axis alone on `(batch, ...)`, without a time axis."""
    args, kwargs = _tensors((args, kwargs), "masked_step")
    return tree.map_structure(TimeStep.from_masked_step, layer(*args, **kwargs))


def apply_to_sequence(states: LayerStates, layer: Any, /, *args, **kwargs):
    """Calls a layer that does the same to every step on a sequence of length 1."""
    args, kwargs = _tensors((args, kwargs), "sequence")
    return tree.map_structure(TimeStep.from_sequence, layer(*args, **kwargs))


def apply_along_axis(states: LayerStates, layer: Any, /, *args, **kwargs):
    """`apply_to_sequence`, unless the layer's axis is the batch or the time axis."""
    rank = max(_ranks(args, kwargs))
    axes = [axis % rank for axis in leaves(layer.axis) if axis is not None]
    if not axes or min(axes) < 2:
        raise CannotStep("works along the time axis, where later steps are")
    return apply_to_sequence(states, layer, *args, **kwargs)


def apply_elementwise(states: LayerStates, operation: Any, /, *args, **kwargs):
    """`apply_to_sequence` of an elementwise operation, whose constants have no time axis."""
    ranks = _ranks(args, kwargs)
    for argument in leaves((args, kwargs)):
        is_constant = isinstance(argument, np.ndarray) or ops.is_tensor(argument)
        shape = argument.shape if is_constant else ()
        time_axis = len(shape) - max(ranks) + 1  # aligned from the last axis, as broadcasting does
        if len(ranks) > 1 or (time_axis >= 0 and shape[time_axis] != 1):
            raise CannotStep("combines tensors whose time axes do not match")
    return apply_to_sequence(states, operation, *args, **kwargs)


def normalization(states: LayerStates, layer: layers.Normalization, /, *args, **kwargs):
    """`layers.Normalization`: statistics that were passed as arguments have a time axis."""
    rule = apply_to_step if layer.input_mean is None else apply_to_sequence
    return rule(states, layer, *args, **kwargs)


def prelu(states: LayerStates, layer: Any, /, *args, **kwargs):
    """`keras.layers.PReLU` whose slopes are shared along the time axis."""
    if 1 not in (layer.shared_axes or ()):
        raise CannotStep("has other weights for every step: build it with shared_axes=[1]")
    return apply_to_sequence(states, layer, *args, **kwargs)


def getitem(states: LayerStates, operation: Any, /, x: TimeStep, key: Any):
    """`x[:, -1]`, the last step so far, and slices of the axes after the time axis."""
    key = list(key) if isinstance(key, tuple | list) else [key]
    every = slice(None)
    if len(key) > 1 and key[0] == every and key[1] == -1:
        return Summary(operation(_unmasked_sequence(x), tuple(key)))
    slices_features = key[0] is Ellipsis and len(key) <= len(x.step.shape) - 1
    if slices_features or key[:2] == [every] * 2:
        return apply_to_sequence(states, operation, x, tuple(key))
    raise CannotStep("selects steps, of which streaming supports only the last, x[:, -1]")


def unsupported(reason: str) -> Callable:
    """A rule that raises `CannotStep`.

    Args:
        reason: str, completes "the layer ...".
    """

    def rule(states: LayerStates, layer: Any, /, *args, **kwargs):
        raise CannotStep(reason)

    return rule


def _unmasked_sequence(x: TimeStep) -> Any:
    if x.mask is not None:
        raise CannotStep("selects the last step, which may be padding: use return_sequences=False")
    return x.sequence


def _ranks(*arguments) -> set[int]:
    """The ranks of the sequences among a layer's arguments, batch and time axis included."""
    return {len(leaf.step.shape) + 1 for leaf in leaves(arguments) if isinstance(leaf, TimeStep)}


def _tensors(arguments: Any, form: str) -> Any:
    """A layer's arguments as tensors: of each `TimeStep` the attribute `form`."""

    def tensor(argument):
        if isinstance(argument, Summary):
            raise CannotStep("combines each step with a summary of the whole sequence")
        return getattr(argument, form) if isinstance(argument, TimeStep) else argument

    return tree.map_structure(tensor, arguments)


_k = keras.layers
_RULES: tuple[tuple[Any, Callable], ...] = (
    (
        (_k.ConvLSTM1D, _k.ConvLSTM2D, _k.ConvLSTM3D),
        unsupported("has states that are not vectors"),
    ),
    (_k.RNN, recurrent.rnn),
    ((_k.Conv1D, _k.SeparableConv1D), recurrent.causal_convolution),
    (layers.Pooling, pooling.pool),
    (layers.LastState, pooling.last_state),
    (_k.GlobalAveragePooling1D, pooling.global_average),
    (_k.GlobalMaxPooling1D, pooling.global_max),
    (layers.Normalization, normalization),
    (
        (
            layers.ApplyMask, layers.StepMask, layers.TokenMask, layers.WordDropout,
            _k.Masking, _k.Dense, _k.Embedding, _k.Identity, _k.ReLU, _k.LeakyReLU, _k.ELU,
            _k.Dropout, _k.GaussianDropout, _k.GaussianNoise, _k.AlphaDropout,
            _k.ActivityRegularization,
        ),
        apply_to_step,
    ),
    (
        (
            layers.AllSteps, layers.CharacterCNN, layers.CharacterBiLSTM,
            _k.TimeDistributed, _k.Activation, _k.SpatialDropout1D, _k.Rescaling,
            _k.Add, _k.Subtract, _k.Multiply, _k.Average, _k.Maximum, _k.Minimum,
        ),
        apply_to_sequence,
    ),
    (
        (
            _k.Concatenate, _k.LayerNormalization, _k.RMSNormalization, _k.BatchNormalization,
            _k.UnitNormalization, _k.Softmax, _k.Normalization,
        ),
        apply_along_axis,
    ),
    (_k.PReLU, prelu),
    (_k.Bidirectional, unsupported("reads the sequence from its end too")),
    (layers.LinearChainCRF, unsupported("decodes the best tags of the whole sequence jointly")),
    (
        (_k.Attention, _k.AdditiveAttention, _k.MultiHeadAttention, _k.GroupQueryAttention,
         layers.SourceAttention),
        unsupported("attends to all steps"),
    ),
    (
        (layers.Decoder, layers.CodeDecoder, layers.ScheduledSampling),
        unsupported("decodes after the whole source sequence has been encoded"),
    ),
    ((_k.Flatten, _k.Reshape, _k.Permute), unsupported("may move steps out of the time axis")),
    (_k.Lambda, unsupported("runs arbitrary code: use keras.ops or a layer")),
)  # fmt: skip
_UNKNOWN = unsupported("has no streaming rule: it is not known to act on each step alone")

# Operations of `keras.ops`, whose classes are not public, by name.
_ELEMENTWISE = (
    "Absolute Add Cast Ceil Clip Cos Divide DivideNoNan Elu Equal Exp Expm1 Floor Gelu Greater "
    "GreaterEqual HardSigmoid HardSilu HardTanh Isfinite Isinf Isnan LeakyRelu Less LessEqual Log "
    "Log10 Log1p Log2 LogSigmoid LogicalAnd LogicalNot LogicalOr LogicalXor Maximum Minimum Mod "
    "Multiply NanToNum Negative NotEqual OnesLike Power Reciprocal Relu Relu6 Round Rsqrt Selu "
    "Sigmoid Sign Silu Sin Softplus Softsign Sqrt Square StopGradient Subtract Tan Tanh TrueDivide "
    "Where ZerosLike"
)
_ALONG_AN_AXIS = (
    "All Any Argmax Argmin Concatenate LogSoftmax Max Mean Min Prod Softmax Std Sum Var"
)


def streaming_rule(operation: Any) -> Callable:
    """The rule by which a layer or an operation of `keras.ops` computes one time step."""
    for classes, rule in _RULES:
        if isinstance(operation, classes):
            return rule
    name = type(operation).__name__
    if not compat.is_keras_op(operation):
        return _UNKNOWN
    if name in _ELEMENTWISE.split():
        return apply_elementwise
    if name in _ALONG_AN_AXIS.split():
        return apply_along_axis
    return getitem if name == "GetItem" else _UNKNOWN
