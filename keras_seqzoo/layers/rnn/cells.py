"""Recurrent cells: their equations, one forward step and one backward step each.

With `a` the activation, `p_t = x_t W + b` the projected input and `R` the recurrent kernel:

    SimpleRNN   h_t = a(p_t + h_{t-1} R)
    LSTM        i, f, g, o = split(p_t + h_{t-1} R), three sigmoids and g a tanh
                c_t = f c_{t-1} + i g,   h_t = o tanh(c_t)
    GRU         z, r = sigmoids of split(p_t + h_{t-1} R), n = tanh(p_n + r (h_{t-1} R_n + b_n))
                h_t = z h_{t-1} + (1 - z) n
    GRU, reset before:   n = tanh(p_n + (r h_{t-1}) R_n)

**Sigmoids** are tanhs, `sigmoid(x) = (1 + tanh(x / 2)) / 2`, with the half multiplied into the
weights (exactly: it is a power of two), so that all gates of a step are one call.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import ClassVar

import numpy as np
import tensorflow as tf

# Derivatives of activations, by their values.
DERIVATIVES: dict[str, Callable] = {
    "linear": tf.ones_like,
    "relu": lambda h: tf.cast(h > 0, h.dtype),
    "sigmoid": lambda h: h * (1 - h),
    "tanh": lambda h: 1 - h * h,
}


ACTIVATIONS: dict[str, Callable] = {
    "linear": tf.identity,
    "relu": tf.nn.relu,
    "sigmoid": tf.sigmoid,
    "tanh": tf.tanh,
}


@dataclasses.dataclass(frozen=True)
class SimpleRNN:
    """`h_t = a(p_t + h_{t-1} R)`."""

    units: int
    activation: str = "tanh"
    gates: ClassVar[int] = 1
    sigmoids: ClassVar[tuple[int, ...]] = ()
    # Arrays of width `units`, kept on the way there and written on the way back, beside the first.
    residuals_beside: ClassVar[int] = 0
    written_beside: ClassVar[int] = 0

    def step(self, projection, states, kernel, bias):
        """One step: the new states, and what the way back needs beside them."""
        hidden = ACTIVATIONS[self.activation](projection + states[0] @ kernel)
        return (hidden,), (hidden,)

    def factors(self, before, after, kept):
        """What `back` multiplies, for all steps at once; deltas take the place of the first."""
        return (DERIVATIVES[self.activation](kept[0]),)

    def back(self, gradients, factors, transposed):
        """One step back: the delta (and what is written beside it), and the gradients before."""
        delta = gradients[0] * factors[0]
        return (delta,), (delta @ transposed,)

    def delta(self, written):
        """The derivative by the projection, from that by the product with the recurrent kernel."""
        return written[0]

    def recurrent_gradient(self, before, delta, kept):
        """The recurrent kernel's, of all steps; `before` are the hidden states before each."""
        return outer(before, delta)


@dataclasses.dataclass(frozen=True)
class LSTM(SimpleRNN):
    """Gates `i, f, g, o`; keeps them."""

    gates: ClassVar[int] = 4
    sigmoids: ClassVar[tuple[int, ...]] = (0, 1, 3)

    def step(self, projection, states, kernel, bias):
        hidden, carry = states
        gates = tf.tanh(projection + hidden @ kernel)
        i, f, g, o = tf.split(gates, 4, axis=-1)
        carry = _half(f) * carry + _half(i) * g
        return (_half(o) * tf.tanh(carry), carry), (gates,)

    def factors(self, before, after, kept):
        i, f, g, o = tf.split(kept[0], 4, axis=-1)
        i, f, o = _half(i), _half(f), _half(o)
        squashed = tf.tanh(after[1])
        slopes = (
            g * i * (1 - i),
            before[1] * f * (1 - f),
            i * (1 - g * g),
            squashed * o * (1 - o),
        )
        return tf.concat(slopes, -1), o * (1 - squashed * squashed), f

    def back(self, gradients, factors, transposed):
        slopes, through_output, forget = factors
        hidden, carry = gradients
        carry = carry + hidden * through_output
        delta = tf.concat((carry, carry, carry, hidden), -1) * slopes
        return (delta,), (delta @ transposed, carry * forget)


@dataclasses.dataclass(frozen=True)
class GRU(SimpleRNN):
    """Gates `z, r, n`, reset after the product; keeps them, and `h_{t-1} R_n + b_n`."""

    gates: ClassVar[int] = 3
    sigmoids: ClassVar[tuple[int, ...]] = (0, 1)
    residuals_beside: ClassVar[int] = 1
    written_beside: ClassVar[int] = 1

    def step(self, projection, states, kernel, bias):
        (hidden,) = states
        inner = hidden @ kernel + bias
        units = self.units
        halves = tf.tanh(projection[..., : 2 * units] + inner[..., : 2 * units])
        z, r = _half(halves[..., :units]), _half(halves[..., units:])
        inner = inner[..., 2 * units :]
        n = tf.tanh(projection[..., 2 * units :] + r * inner)
        return (z * (hidden - n) + n,), (tf.concat((halves, n), -1), inner)

    def _gates(self, kept):
        z, r, n = tf.split(kept[0], 3, axis=-1)
        return _half(z), _half(r), n

    def factors(self, before, after, kept):
        z, r, n = self._gates(kept)
        candidate = (1 - z) * (1 - n * n)
        inner = candidate * r
        slopes = ((before[0] - n) * z * (1 - z), inner * kept[1] * (1 - r), inner)
        return tf.concat(slopes, -1), z, candidate

    def back(self, gradients, factors, transposed):
        slopes, z, candidate = factors
        (hidden,) = gradients
        delta = tf.concat((hidden, hidden, hidden), -1) * slopes
        return (delta, hidden * candidate), (delta @ transposed + hidden * z,)

    def delta(self, written):
        recurrent, candidate = written
        return tf.concat((recurrent[..., : 2 * self.units], candidate), -1)


@dataclasses.dataclass(frozen=True)
class GRUResetBefore(GRU):
    """Gates `z, r, n`, reset before the product; keeps them."""

    residuals_beside: ClassVar[int] = 0
    written_beside: ClassVar[int] = 0

    def step(self, projection, states, kernel, bias):
        (hidden,) = states
        units = self.units
        halves = tf.tanh(projection[..., : 2 * units] + hidden @ kernel[..., : 2 * units])
        z, r = _half(halves[..., :units]), _half(halves[..., units:])
        n = tf.tanh(projection[..., 2 * units :] + (r * hidden) @ kernel[..., 2 * units :])
        return (z * (hidden - n) + n,), (tf.concat((halves, n), -1),)

    def factors(self, before, after, kept):
        z, r, n = self._gates(kept)
        before = before[0]
        slopes = ((before - n) * z * (1 - z), before * r * (1 - r), (1 - z) * (1 - n * n))
        return tf.concat(slopes, -1), z, r

    def back(self, gradients, factors, transposed):
        slopes, z, r = factors
        (hidden,) = gradients
        units = self.units
        update, reset, candidate = tf.split(slopes, 3, axis=-1)
        candidate = hidden * candidate
        through_reset = candidate @ transposed[..., 2 * units :, :]
        halves = tf.concat((hidden * update, through_reset * reset), -1)
        before = halves @ transposed[..., : 2 * units, :] + through_reset * r + hidden * z
        return (tf.concat((halves, candidate), -1),), (before,)

    def delta(self, written):
        return written[0]

    def recurrent_gradient(self, before, delta, kept):
        _, r, _ = self._gates(kept)
        halves, candidate = delta[..., : 2 * self.units], delta[..., 2 * self.units :]
        return tf.concat((outer(before, halves), outer(r * before, candidate)), -1)


Cell = SimpleRNN | LSTM | GRU | GRUResetBefore


def project(steps, kernel):
    """`steps @ kernel` for `(time, rows, features)`, as one product."""
    return tf.tensordot(steps, kernel, 1)


def outer(steps, deltas):
    """`sum_t steps_t^T deltas_t`, as one product."""
    rows, columns = (tf.reshape(one, (-1, one.shape[-1])) for one in (steps, deltas))
    return tf.matmul(rows, columns, transpose_a=True)


def halves(cell: Cell, dtype):
    """What weights are multiplied by so that sigmoids may be tanhs, `(gates * units,)`."""
    scale = np.ones((cell.gates, cell.units))
    scale[list(cell.sigmoids)] = 0.5
    return tf.constant(scale.reshape(-1), dtype)


def _half(tanh):
    """The sigmoid whose argument's half has this tanh."""
    return 0.5 * tanh + 0.5
