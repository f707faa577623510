"""Equations of the recurrent cells, with hand-written derivatives of one step.

With `a` the activation, `p_t = x_t W + b` the projected input and `R` the recurrent kernel:

    SimpleRNN   h_t = a(p_t + h_{t-1} R)
    LSTM        i, f, g, o = split(p_t + h_{t-1} R), three sigmoids and g a tanh
                c_t = f c_{t-1} + i g,   h_t = o tanh(c_t)
    GRU         z, r = sigmoids of split(p_t + h_{t-1} R), n = tanh(p_n + r (h_{t-1} R_n + b_n))
                h_t = z h_{t-1} + (1 - z) n
    GRU, reset before:   n = tanh(p_n + (r h_{t-1}) R_n)

A cell is a forward step and a backward step. The forward step also returns its residuals, which are
the values that the backward pass needs. The backward step multiplies the gradient of the loss by
the states with the cell's local gradients, which depend on the forward pass alone and are computed
for all steps at once.

Sigmoids are computed as tanhs, `sigmoid(x) = (1 + tanh(x / 2)) / 2`, so that all gates of a step
are one call. The factor 1/2 is multiplied into the weights, which is exact as it is a power of two.
Residuals hold these tanhs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import ClassVar

import numpy as np
import tensorflow as tf

ACTIVATIONS: dict[str, Callable] = {
    "linear": tf.identity,
    "relu": tf.nn.relu,
    "sigmoid": tf.sigmoid,
    "tanh": tf.tanh,
}
# Derivatives as functions of the activation's output.
DERIVATIVES: dict[str, Callable] = {
    "linear": tf.ones_like,
    "relu": lambda h: tf.cast(h > 0, h.dtype),
    "sigmoid": lambda h: h * (1 - h),
    "tanh": lambda h: 1 - h * h,
}


@dataclasses.dataclass(frozen=True)
class SimpleRNN:
    """`h_t = a(p_t + h_{t-1} R)`. The residual is `h_t`."""

    units: int
    activation: str = "tanh"
    num_gates: ClassVar[int] = 1
    sigmoid_gates: ClassVar[tuple[int, ...]] = ()
    # Arrays of width `units` beside the first residual, and beside the first gradient of a step.
    num_extra_residuals: ClassVar[int] = 0
    num_extra_gradients: ClassVar[int] = 0

    def step(self, projection, states, recurrent_kernel, recurrent_bias):
        """One forward step: the new states and the residuals."""
        hidden = ACTIVATIONS[self.activation](projection + states[0] @ recurrent_kernel)
        return (hidden,), (hidden,)

    def local_gradients(self, previous_states, states, residuals):
        """What `backward_step` multiplies gradients with, of all steps at once.

        The first has the shape of the gates; the gradients by the pre-activations overwrite it.
        """
        return (DERIVATIVES[self.activation](residuals[0]),)

    def backward_step(self, state_grads, local_gradients, transposed_kernel):
        """One backward step: gradients by the pre-activations and by the previous states.

        The first of the former is the gradient by the output of the recurrent product.
        """
        pre_activation_grad = state_grads[0] * local_gradients[0]
        return (pre_activation_grad,), (pre_activation_grad @ transposed_kernel,)

    def projection_grad(self, pre_activation_grads):
        """The gradient by the projected input, from the first results of `backward_step`."""
        return pre_activation_grads[0]

    def recurrent_kernel_grad(self, previous_hidden, pre_activation_grad, residuals):
        """The gradient by the recurrent kernel, summed over all steps."""
        return sum_outer_products(previous_hidden, pre_activation_grad)


@dataclasses.dataclass(frozen=True)
class LSTM(SimpleRNN):
    """Gates `i, f, g, o`, which are the residual."""

    num_gates: ClassVar[int] = 4
    sigmoid_gates: ClassVar[tuple[int, ...]] = (0, 1, 3)

    def step(self, projection, states, recurrent_kernel, recurrent_bias):
        hidden, carry = states
        gates = tf.tanh(projection + hidden @ recurrent_kernel)
        i, f, g, o = tf.split(gates, 4, axis=-1)
        carry = _sigmoid(f) * carry + _sigmoid(i) * g
        return (_sigmoid(o) * tf.tanh(carry), carry), (gates,)

    def local_gradients(self, previous_states, states, residuals):
        i, f, g, o = tf.split(residuals[0], 4, axis=-1)
        i, f, o = _sigmoid(i), _sigmoid(f), _sigmoid(o)
        carry_tanh = tf.tanh(states[1])
        by_gate = (
            g * i * (1 - i),
            previous_states[1] * f * (1 - f),
            i * (1 - g * g),
            carry_tanh * o * (1 - o),
        )
        return tf.concat(by_gate, -1), o * (1 - carry_tanh * carry_tanh), f

    def backward_step(self, state_grads, local_gradients, transposed_kernel):
        by_gate, hidden_by_carry, forget = local_gradients
        hidden, carry = state_grads
        carry = carry + hidden * hidden_by_carry
        pre_activation_grad = tf.concat((carry, carry, carry, hidden), -1) * by_gate
        return (pre_activation_grad,), (pre_activation_grad @ transposed_kernel, carry * forget)


@dataclasses.dataclass(frozen=True)
class GRU(SimpleRNN):
    """Gates `z, r, n`, reset after the product. Residuals: the gates, and `h_{t-1} R_n + b_n`."""

    num_gates: ClassVar[int] = 3
    sigmoid_gates: ClassVar[tuple[int, ...]] = (0, 1)
    num_extra_residuals: ClassVar[int] = 1
    num_extra_gradients: ClassVar[int] = 1

    def step(self, projection, states, recurrent_kernel, recurrent_bias):
        (hidden,) = states
        recurrent = hidden @ recurrent_kernel + recurrent_bias
        units = self.units
        zr = tf.tanh(projection[..., : 2 * units] + recurrent[..., : 2 * units])
        z, r = _sigmoid(zr[..., :units]), _sigmoid(zr[..., units:])
        recurrent = recurrent[..., 2 * units :]
        n = tf.tanh(projection[..., 2 * units :] + r * recurrent)
        return (z * (hidden - n) + n,), (tf.concat((zr, n), -1), recurrent)

    def _split_gates(self, residuals):
        z, r, n = tf.split(residuals[0], 3, axis=-1)
        return _sigmoid(z), _sigmoid(r), n

    def local_gradients(self, previous_states, states, residuals):
        z, r, n = self._split_gates(residuals)
        candidate = (1 - z) * (1 - n * n)
        recurrent = candidate * r
        by_gate = (
            (previous_states[0] - n) * z * (1 - z),
            recurrent * residuals[1] * (1 - r),
            recurrent,
        )
        return tf.concat(by_gate, -1), z, candidate

    def backward_step(self, state_grads, local_gradients, transposed_kernel):
        by_gate, z, candidate = local_gradients
        (hidden,) = state_grads
        pre_activation_grad = tf.concat((hidden, hidden, hidden), -1) * by_gate
        previous_hidden = pre_activation_grad @ transposed_kernel + hidden * z
        return (pre_activation_grad, hidden * candidate), (previous_hidden,)

    def projection_grad(self, pre_activation_grads):
        # The reset gate multiplies the recurrent part of the candidate, not its projection.
        recurrent, candidate = pre_activation_grads
        return tf.concat((recurrent[..., : 2 * self.units], candidate), -1)


@dataclasses.dataclass(frozen=True)
class GRUResetBefore(GRU):
    """Gates `z, r, n`, reset before the product; the gates are the residual."""

    num_extra_residuals: ClassVar[int] = 0
    num_extra_gradients: ClassVar[int] = 0

    def step(self, projection, states, recurrent_kernel, recurrent_bias):
        (hidden,) = states
        units = self.units
        zr = tf.tanh(projection[..., : 2 * units] + hidden @ recurrent_kernel[..., : 2 * units])
        z, r = _sigmoid(zr[..., :units]), _sigmoid(zr[..., units:])
        n = tf.tanh(
            projection[..., 2 * units :] + (r * hidden) @ recurrent_kernel[..., 2 * units :]
        )
        return (z * (hidden - n) + n,), (tf.concat((zr, n), -1),)

    def local_gradients(self, previous_states, states, residuals):
        z, r, n = self._split_gates(residuals)
        hidden = previous_states[0]
        by_gate = ((hidden - n) * z * (1 - z), hidden * r * (1 - r), (1 - z) * (1 - n * n))
        return tf.concat(by_gate, -1), z, r

    def backward_step(self, state_grads, local_gradients, transposed_kernel):
        by_gate, z, r = local_gradients
        (hidden,) = state_grads
        units = self.units
        update, reset, candidate = tf.split(by_gate, 3, axis=-1)
        candidate = hidden * candidate
        reset_hidden = candidate @ transposed_kernel[..., 2 * units :, :]  # by r h_{t-1}
        zr = tf.concat((hidden * update, reset_hidden * reset), -1)
        previous_hidden = (
            zr @ transposed_kernel[..., : 2 * units, :] + reset_hidden * r + hidden * z
        )
        return (tf.concat((zr, candidate), -1),), (previous_hidden,)

    def projection_grad(self, pre_activation_grads):
        return pre_activation_grads[0]

    def recurrent_kernel_grad(self, previous_hidden, pre_activation_grad, residuals):
        _, r, _ = self._split_gates(residuals)
        zr = pre_activation_grad[..., : 2 * self.units]
        candidate = pre_activation_grad[..., 2 * self.units :]
        products = (
            sum_outer_products(previous_hidden, zr),
            sum_outer_products(r * previous_hidden, candidate),
        )
        return tf.concat(products, -1)


Cell = SimpleRNN | LSTM | GRU | GRUResetBefore


def project(steps, kernel):
    """`steps @ kernel` for `(time, batch, features)`, as one product."""
    return tf.tensordot(steps, kernel, 1)


def sum_outer_products(steps, gradients):
    """`sum_t steps_t^T gradients_t`, as one product."""
    steps, gradients = (tf.reshape(x, (-1, x.shape[-1])) for x in (steps, gradients))
    return tf.matmul(steps, gradients, transpose_a=True)


def gate_scale(cell: Cell, dtype):
    """The factors `(num_gates * units,)` of the weights: 1/2 for the gates that are sigmoids."""
    scale = np.ones((cell.num_gates, cell.units))
    scale[list(cell.sigmoid_gates)] = 0.5
    return tf.constant(scale.reshape(-1), dtype)


def _sigmoid(half_tanh):
    """`sigmoid(x)`, given `tanh(x / 2)`."""
    return 0.5 * half_tanh + 0.5
