"""Which layers can take one step for itself, and why others cannot.

A rule is called with the memory, the layer, and what the graph gives it: `Timed` and `Whole`
tensors among other arguments. It gives what the layer would.
"""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
from keras import ops, tree

from keras_seqzoo import layers
from keras_seqzoo.streaming import pooling, recurrent
from keras_seqzoo.streaming.state import CannotStep, Memory, Timed, Whole
from keras_seqzoo.utils import compat


def on_the_step(memory: Memory, layer, /, *args, **kwargs):
    """A layer that works along the last axis alone needs no axis of time."""
    args, kwargs = _tensors(args, kwargs, "alone")
    return tree.map_structure(Timed.of_alone, layer(*args, **kwargs))


def on_a_sequence(memory: Memory, layer, /, *args, **kwargs):
    """A layer that does the same to every step is given a sequence of one."""
    args, kwargs = _tensors(args, kwargs, "sequence")
    return tree.map_structure(Timed.of_sequence, layer(*args, **kwargs))


def along_its_axis(memory: Memory, layer, /, *args, **kwargs):
    """The same, unless the axis that it works along is that of time."""
    given = tree.flatten((args, kwargs))
    rank = max(len(one.step.shape) for one in given if isinstance(one, Timed)) + 1
    axes = [axis % rank for axis in tree.flatten(layer.axis) if axis is not None]
    if not axes or min(axes) < 2:
        raise CannotStep("works along the axis of time, where later steps are")
    return on_a_sequence(memory, layer, *args, **kwargs)


def number_by_number(memory: Memory, operation, /, *args, **kwargs):
    """An operation on each number, with constants that are the same at every step."""
    given = tree.flatten((args, kwargs))
    ranks = {len(one.step.shape) + 1 for one in given if isinstance(one, Timed)}
    for one in given:
        shape = one.shape if isinstance(one, np.ndarray) or ops.is_tensor(one) else ()
        time = len(shape) - max(ranks) + 1  # where the axis of time would be
        if len(ranks) > 1 or (time >= 0 and shape[time] != 1):
            raise CannotStep("joins what has not the same axis of time")
    return on_a_sequence(memory, operation, *args, **kwargs)


def scaling(memory: Memory, layer, /, *args, **kwargs):
    """Ours reads its weights whatever the axes before the last; given statistics have all axes."""
    rule = on_the_step if layer.input_mean is None else on_a_sequence
    return rule(memory, layer, *args, **kwargs)


def shared_slopes(memory: Memory, layer, /, *args, **kwargs):
    """A PReLU may have slopes of its own for every step."""
    if 1 not in (layer.shared_axes or ()):
        raise CannotStep("has other weights for every step: build it with shared_axes=[1]")
    return on_a_sequence(memory, layer, *args, **kwargs)


def picked(memory: Memory, operation, /, x, key):
    """`x[:, -1]`, the last step, and slices behind the axis of time."""
    key = key if isinstance(key, tuple | list) else (key,)
    every = slice(None)
    if len(key) > 1 and key[0] == every and key[1] == -1:
        return Whole(operation(_value_of(x), tuple(key)))
    behind = key[0] is Ellipsis and len(key) <= len(x.step.shape) - 1
    if behind or list(key[:2]) == [every] * 2:
        return on_a_sequence(memory, operation, x, key)
    raise CannotStep("picks steps: of these only the last, x[:, -1], is known while streaming")


def _value_of(x: Timed):
    if x.mask is not None:
        raise CannotStep("picks the last step, which may be padding: use return_sequences=False")
    return x.sequence


def refused(why: str) -> Callable:
    """A rule that says why not."""

    def rule(memory: Memory, layer, /, *args, **kwargs):
        raise CannotStep(why)

    return rule


def _tensors(args, kwargs, form: str):
    """The arguments as tensors, each step in the form that is wanted."""

    def tensor(one):
        if isinstance(one, Whole):
            raise CannotStep("joins each step with what is made of the whole sequence")
        return getattr(one, form) if isinstance(one, Timed) else one

    return tree.map_structure(tensor, (args, kwargs))


_k = keras.layers
_RULES = (
    ((_k.ConvLSTM1D, _k.ConvLSTM2D, _k.ConvLSTM3D), refused("has states that are not vectors")),
    (_k.RNN, recurrent.recurrent),
    ((_k.Conv1D, _k.SeparableConv1D), recurrent.convolution),
    (layers.Pooling, pooling.pooled),
    (layers.LastState, pooling.last),
    (_k.GlobalAveragePooling1D, pooling.global_average),
    (_k.GlobalMaxPooling1D, pooling.global_maximum),
    (layers.Normalization, scaling),
    (
        (
            layers.ApplyMask, layers.StepMask, layers.TokenMask, layers.WordDropout,
            _k.Masking, _k.Dense, _k.Embedding, _k.Identity, _k.ReLU, _k.LeakyReLU, _k.ELU,
            _k.Dropout, _k.GaussianDropout, _k.GaussianNoise, _k.AlphaDropout,
            _k.ActivityRegularization,
        ),
        on_the_step,
    ),
    (
        (
            layers.AllSteps, layers.CharacterCNN, layers.CharacterBiLSTM,
            _k.TimeDistributed, _k.Activation, _k.SpatialDropout1D, _k.Rescaling,
            _k.Add, _k.Subtract, _k.Multiply, _k.Average, _k.Maximum, _k.Minimum,
        ),
        on_a_sequence,
    ),
    (
        (
            _k.Concatenate, _k.LayerNormalization, _k.RMSNormalization, _k.BatchNormalization,
            _k.UnitNormalization, _k.Softmax, _k.Normalization,
        ),
        along_its_axis,
    ),
    (_k.PReLU, shared_slopes),
    (_k.Bidirectional, refused("reads the sequence from its end too")),
    (layers.LinearChainCRF, refused("finds the tags that fit best as a whole")),
    (
        (_k.Attention, _k.AdditiveAttention, _k.MultiHeadAttention, _k.GroupQueryAttention,
         layers.SourceAttention),
        refused("looks at all steps"),
    ),
    (
        (layers.Decoder, layers.CodeDecoder, layers.ScheduledSampling),
        refused("says a sequence that another was made into, once that is read"),
    ),
    ((_k.Flatten, _k.Reshape, _k.Permute), refused("may move steps out of the axis of time")),
    (_k.Lambda, refused("is code of which nothing is known: use keras.ops or a layer")),
)  # fmt: skip
_UNKNOWN = refused("is not known to act on each step alone or to carry a state")

# Operations of `keras.ops`, whose classes are not public: by name.
_NUMBER_BY_NUMBER = (
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


def rule_of(operation) -> Callable:
    """How a layer or an operation of `keras.ops` takes one step."""
    for kinds, rule in _RULES:
        if isinstance(operation, kinds):
            return rule
    name = type(operation).__name__
    if not compat.is_keras_op(operation):
        return _UNKNOWN
    if name in _NUMBER_BY_NUMBER.split():
        return number_by_number
    if name in _ALONG_AN_AXIS.split():
        return along_its_axis
    return picked if name == "GetItem" else _UNKNOWN
