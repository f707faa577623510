"""A linear-chain conditional random field (CRF) as a Keras layer."""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_seqzoo.errors import ArgumentError
from keras_seqzoo.layers.crf.forward_backward import (
    NEG_INF,
    backward_messages,
    backward_messages_with_vjp,
    log_space_messages,
    max_along,
    next_messages,
    replace_forbidden,
    scan_steps,
)
from keras_seqzoo.layers.export_scope import argmax
from keras_seqzoo.layers.masking import PACKAGE
from keras_seqzoo.utils.argument_validation import (
    argument_message,
    check_positive,
    is_int,
)

# The loss of each forbidden transition in a gold sequence: large, but small enough that float32
# keeps decimals beside it.
FORBIDDEN_LOSS = 1e4


@keras.saving.register_keras_serializable(package=PACKAGE)
class LinearChainCRF(keras.layers.Layer):
    """Linear-chain conditional random field: decodes the most probable sequence of tags.

    The score of a tag sequence is its start score, plus the emission scores of its steps, plus its
    transition scores, plus its end score. Its probability is proportional to the exponential. The
    layer computes in float32 at least, whatever the dtype policy.

    Shapes: emission scores `(batch, time, classes)` -> tag ids `(batch, time)`, int32.
    Masking: padded steps are left out of the chain, wherever they stand, and their tag id is 0. The
        output carries the mask. A row without real steps is the empty sequence with a loss of 0.
    State: none kept between calls.

    Args:
        classes: int of at least 2, the number of tags.
        allowed: nested list of bool `(classes, classes)`, [from][to], the allowed transitions; None
            allows all. A sequence with any other transition has probability 0 and is never
            predicted, except for rows of a length that no allowed sequence has.
        allowed_start: list of bool `(classes,)`, the tags that may start a sequence; None allows
            all.
        allowed_end: list of bool `(classes,)`, the tags that may end a sequence; None allows all.
        transition_initializer: initializer of the weights `transitions`, `start` and `end`.
        transition_regularizer: regularizer of the weights `transitions`, `start` and `end`.
        **kwargs: those of `keras.layers.Layer`.

    Raises:
        ArgumentError: if an argument has another type or shape, or if no sequence is allowed.

    Example:

    >>> from keras_seqzoo.layers import LinearChainCRF
    >>> crf = LinearChainCRF(2, allowed=[[True, False], [False, True]])
    >>> scores = np.array([[[3.0, 0.0], [0.0, 1.0]]])
    >>> keras.ops.convert_to_numpy(crf(scores)).tolist()
    [[0, 0]]

    Reference: [Lafferty et al., 2001](https://repository.upenn.edu/cis_papers/159)
    """

    def __init__(
        self,
        classes: int,
        *,
        allowed: Any = None,
        allowed_start: Any = None,
        allowed_end: Any = None,
        transition_initializer: Any = "zeros",
        transition_regularizer: Any = None,
        **kwargs: Any,
    ):
        super().__init__(autocast=False, **kwargs)
        if not is_int(classes) or classes < 2:
            raise ArgumentError(argument_message("classes", "an int of at least 2", classes))
        self.classes = int(classes)
        self.allowed = _booleans("allowed", allowed, (classes, classes))
        self.allowed_start = _booleans("allowed_start", allowed_start, (classes,))
        self.allowed_end = _booleans("allowed_end", allowed_end, (classes,))
        _check_sequence_exists(*self._allowed())
        self.transition_initializer = keras.initializers.get(transition_initializer)
        self.transition_regularizer = keras.regularizers.get(transition_regularizer)
        self.supports_masking = True

    @property
    def _score_dtype(self) -> str:
        return "float64" if self.compute_dtype == "float64" else "float32"

    def _allowed(self) -> list[np.ndarray]:
        """Allowed transitions, start tags and end tags as arrays."""
        constraints = (self.allowed, self.allowed_start, self.allowed_end)
        shapes = ((self.classes, self.classes), (self.classes,), (self.classes,))
        return [
            np.ones(shape, bool) if allowed is None else np.array(allowed, bool)
            for allowed, shape in zip(constraints, shapes, strict=True)
        ]

    def build(self, input_shape):
        self._check_scores(input_shape)
        self.transitions = self._add_weight("transitions", (self.classes, self.classes))
        self.start = self._add_weight("start", (self.classes,))
        self.end = self._add_weight("end", (self.classes,))
        self.built = True

    def _add_weight(self, name, shape):
        return self.add_weight(
            name=name,
            shape=shape,
            dtype=self._score_dtype,
            initializer=self.transition_initializer,
            regularizer=self.transition_regularizer,
            autocast=False,
        )

    def _check_scores(self, shape) -> None:
        if len(shape) != 3 or shape[-1] not in (None, self.classes):
            raise ArgumentError(
                argument_message("scores", f"of shape (batch, time, {self.classes})", tuple(shape))
            )

    def call(self, scores, mask=None):
        request = _REQUEST.get()
        if request is None or request.layer is not self:
            return self.decode(scores, mask)
        outputs = {"scores": self._cast(scores)}
        if mask is not None:
            outputs["mask"] = ops.cast(mask, "bool")
        if request.decode:
            outputs["tags"] = self.decode(ops.stop_gradient(outputs["scores"]), mask)
        request.outputs = outputs
        return scores

    def compute_mask(self, inputs, previous_mask=None):
        return previous_mask

    def compute_output_spec(self, scores, mask=None):
        self._check_scores(scores.shape)
        return keras.KerasTensor(scores.shape[:-1], dtype="int32")

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "classes": self.classes,
            "allowed": self.allowed,
            "allowed_start": self.allowed_start,
            "allowed_end": self.allowed_end,
            "transition_initializer": keras.initializers.serialize(self.transition_initializer),
            "transition_regularizer": keras.regularizers.serialize(self.transition_regularizer),
        }

    def decode(self, scores, mask=None):
        """Decode the most probable tags with the Viterbi algorithm.

        Shapes: emission scores `(batch, time, classes)` -> tag ids `(batch, time)`, int32.
        Masking: `mask` `(batch, time)`, True for real steps; padded steps get tag id 0.
        State: none.

        Args:
            scores: tensor of emission scores.
            mask: bool tensor or None.

        Raises:
            ArgumentError: if `scores` or `mask` has another shape.

        Reference: [Viterbi, 1967](https://doi.org/10.1109/TIT.1967.1054010)
        """
        scores, mask, transitions, end = self._chain(scores, mask)
        messages, _ = log_space_messages(scores, transitions, end, mask, max_along)

        def step(previous_tag, inputs):
            score, next_message, *step_mask = inputs
            total = ops.take(transitions, previous_tag, axis=0) + score + next_message
            # Never the start state, even where no sequence is allowed.
            tag = ops.cast(argmax(total[:, : self.classes]), "int32")
            if not step_mask:
                return tag, (tag,)
            real = step_mask[0][:, 0]
            return ops.where(real, tag, previous_tag), (ops.where(real, tag, 0),)

        start = ops.full(ops.shape(scores)[1:2], self.classes, "int32")
        inputs = [scores, next_messages(messages, end)] + ([] if mask is None else [mask])
        _, (tags,) = scan_steps(step, start, inputs, [("int32", (None,))])
        return ops.transpose(tags)

    def step_losses(self, scores, tags, mask=None):
        """Negative log-likelihood of each tag, given the emission scores and the previous tag.

        By the chain rule the sum over real steps is the negative log-likelihood of the sequence, so
        that steps can be weighted. A forbidden transition, start or end among `tags` adds 10,000 to
        the loss, without a gradient.

        Shapes: scores `(batch, time, classes)`, tags `(batch, time)` -> `(batch, time)`.
        Masking: `mask` `(batch, time)`, True for real steps; the loss of padded steps is 0 for any
            tag.
        State: none.

        Args:
            scores: tensor of emission scores.
            tags: int tensor; tag ids of real steps must be in [0, classes).
            mask: bool tensor or None.

        Raises:
            ArgumentError: if an argument has another shape.
        """
        tags = ops.convert_to_tensor(tags)
        _check_steps("tags", tags.shape)
        scores, mask, transitions, end = self._chain(scores, mask)
        messages, scales = backward_messages(scores, transitions, end, mask)
        following = next_messages(messages, end)
        if self._constrained:
            messages, following, transitions = (
                replace_forbidden(x, -FORBIDDEN_LOSS) for x in (messages, following, transitions)
            )
        tags, previous_tags = _with_previous_tags(tags, mask, self.classes)
        size = self.classes + 1
        # One-hot products, as the gradient of a lookup is a slow scatter.
        losses = (
            ops.sum(messages * ops.one_hot(previous_tags, size, dtype=self._score_dtype), axis=-1)
            + scales[..., 0]
            - ops.sum((scores + following) * ops.one_hot(tags, size, dtype=self._score_dtype), -1)
            - ops.take(ops.reshape(transitions, (-1,)), previous_tags * size + tags)
        )
        if mask is not None:
            losses = ops.where(mask[..., 0], losses, ops.zeros_like(losses))
        return ops.transpose(losses)

    def log_partition(self, scores, mask=None):
        """Log-partition function: the log of the summed exponential scores of all sequences.

        Shapes: emission scores `(batch, time, classes)` -> `(batch,)`.
        Masking: `mask` `(batch, time)`, True for real steps; 0 for a row without real steps.
        State: none.

        Args:
            scores: tensor of emission scores.
            mask: bool tensor or None.

        Raises:
            ArgumentError: if `scores` or `mask` has another shape.
        """
        scores, mask, transitions, end = self._chain(scores, mask)
        messages, scales = backward_messages(scores, transitions, end, mask)
        total = messages[0, :, self.classes] + ops.sum(scales[..., 0], axis=0)
        total = total + self._max_end_score()
        if mask is None:
            return total
        return ops.where(ops.any(mask[..., 0], axis=0), total, ops.zeros_like(total))

    def marginals(self, scores, mask=None):
        """Marginal probability of each tag at each step. The result has no gradient.

        Shapes: emission scores `(batch, time, classes)` -> `(batch, time, classes)`.
        Masking: `mask` `(batch, time)`, True for real steps; padded steps get 0.
        State: none.

        Args:
            scores: tensor of emission scores.
            mask: bool tensor or None.

        Raises:
            ArgumentError: if `scores` or `mask` has another shape.
        """
        scores, mask, transitions, end = self._chain(scores, mask)
        _, vjp = backward_messages_with_vjp(scores, transitions, end, mask)
        # Marginals are the gradient of the log-partition, the first message of the start state.
        first = ops.zeros_like(scores[:1, :, :-1])
        first = ops.concatenate([first, ops.ones_like(scores[:1, :, :1])], axis=-1)
        message_grads = ops.concatenate([first, ops.zeros_like(scores[1:])], axis=0)
        score_grads, _, _ = vjp(message_grads)
        return ops.stop_gradient(ops.transpose(score_grads[..., : self.classes], (1, 0, 2)))

    def n_best(self, scores, n: int, mask=None):
        """Decode the `n` most probable sequences, best first, with their log-probabilities.

        Shapes: emission scores `(batch, time, classes)` -> tag ids `(batch, n, time)`, int32, and
            log-probabilities `(batch, n)`.
        Masking: `mask` `(batch, time)`, True for real steps; padded steps get tag id 0.
        State: none.

        Args:
            scores: tensor of emission scores.
            n: positive int. Where there are fewer sequences, the others have tag ids 0 and
                log-probability -inf.
            mask: bool tensor or None.

        Raises:
            ArgumentError: if `n` is not positive, or `scores` or `mask` has another shape.
        """
        check_positive(n=n)
        tags, exists = self._n_best_tags(*self._chain(scores, mask), n)
        scores = ops.repeat(scores, n, axis=0)
        flat_tags = ops.reshape(tags, (-1, ops.shape(tags)[2]))
        mask = None if mask is None else ops.repeat(mask, n, axis=0)
        losses = ops.sum(self.step_losses(scores, flat_tags, mask), axis=-1)
        losses = ops.reshape(losses, (-1, n))
        return tags, ops.where(exists, -losses, -ops.full_like(losses, np.inf))

    def _n_best_tags(self, scores, mask, transitions, end, n):
        """Tag ids `(batch, n, time)`, and whether there is such a sequence `(batch, n)`."""
        classes, mask_inputs = self.classes, [] if mask is None else [mask]
        batch = ops.shape(scores)[1]

        # `best` `(batch, classes + 1, n)`: the scores of the best paths from each tag to the end.
        def step(best, inputs):
            score, *step_mask = inputs
            total = (score[..., None] + best)[:, None, :classes]
            total = total + transitions[None, :, :classes, None]
            new, choice = ops.top_k(ops.reshape(total, (-1, classes + 1, classes * n)), n)
            top = max_along(new, axis=(1, 2), keepdims=True)
            new = ops.maximum(new - ops.where(top > NEG_INF / 2, top, 0), NEG_INF)
            if step_mask:
                new = ops.where(step_mask[0][..., None], new, best)
            return new, (ops.cast(choice, "int32"),)

        best = ops.concatenate(
            [end[:, None], ops.full((classes + 1, n - 1), NEG_INF, end.dtype)], 1
        )
        best = ops.broadcast_to(best, (batch, classes + 1, n))
        spec = [("int32", (None, classes + 1, n))]
        best, (choices,) = scan_steps(step, best, [scores, *mask_inputs], spec, reverse=True)

        def follow(carry, inputs):
            tag, rank = carry  # each (batch, n)
            choice, *step_mask = inputs
            choice = ops.reshape(choice, (-1, (classes + 1) * n))
            choice = ops.take_along_axis(choice, tag * n + rank, axis=1)
            next_tag, next_rank = choice // n, choice % n
            if not step_mask:
                return (next_tag, next_rank), (next_tag,)
            real = step_mask[0]
            carry = ops.where(real, next_tag, tag), ops.where(real, next_rank, rank)
            return carry, (ops.where(real, next_tag, 0),)

        tag = ops.full((batch, n), classes, "int32")
        rank = ops.zeros_like(tag) + ops.arange(n, dtype="int32")
        inputs = [choices, *mask_inputs]
        _, (tags,) = scan_steps(follow, (tag, rank), inputs, [("int32", (None, n))])
        exists = best[:, classes] > NEG_INF / 2
        tags = ops.transpose(tags, (1, 2, 0))
        return ops.where(exists[..., None], tags, 0), exists

    @property
    def _constrained(self) -> bool:
        return not all(allowed.all() for allowed in self._allowed())

    def _cast(self, scores):
        scores = ops.convert_to_tensor(scores)
        self._check_scores(scores.shape)
        return ops.cast(scores, self._score_dtype)

    def _chain(self, scores, mask):
        """The arguments of the forward-backward algorithm: time first, and a start state added.

        Returns emission scores `(time, batch, classes + 1)`, mask `(time, batch, 1)` or None,
        transition scores `(classes + 1, classes + 1)`, [from, to], and end scores `(classes + 1,)`
        with a maximum of 0. The start state is the last one. No transition leads to it, and only
        the empty sequence ends there.
        """
        scores = self._cast(scores)
        if not self.built:
            self.build(scores.shape)
        scores = ops.transpose(scores, (1, 0, 2))
        step_mask = None
        if mask is not None:
            mask = ops.convert_to_tensor(mask)
            _check_steps("mask", mask.shape)
            step_mask = ops.transpose(ops.cast(mask, "bool"))[..., None]
            scores = ops.where(step_mask, scores, ops.zeros_like(scores))  # padding may be NaN
        scores = ops.pad(scores, [[0, 0], [0, 0], [0, 1]])
        allowed, allowed_start, _ = self._allowed()
        rows = [ops.convert_to_tensor(self.transitions), ops.convert_to_tensor(self.start)[None]]
        transitions = ops.concatenate(rows, axis=0)
        transitions = ops.where(np.vstack([allowed, allowed_start]), transitions, NEG_INF)
        transitions = ops.pad(transitions, [[0, 0], [0, 1]], constant_values=NEG_INF)
        end = ops.pad(self._end_scores() - self._max_end_score(), [[0, 1]])
        return scores, step_mask, transitions, end

    def _end_scores(self):
        return ops.where(self._allowed()[2], ops.convert_to_tensor(self.end), NEG_INF)

    def _max_end_score(self):
        return ops.stop_gradient(max_along(self._end_scores()))


def _booleans(name: str, value: Any, shape: tuple[int, ...]) -> list | None:
    if value is None:
        return None
    try:
        array = np.asarray(value)
    except ValueError:  # ragged
        array = np.empty(0)
    if array.shape != shape or array.dtype != bool:
        raise ArgumentError(argument_message(name, f"None or bools of shape {shape}", value))
    return array.tolist()


def _check_steps(name: str, shape) -> None:
    if len(shape) != 2:
        raise ArgumentError(argument_message(name, "of shape (batch, time)", tuple(shape)))


def _check_sequence_exists(allowed, start, end) -> None:
    reachable = start
    for _ in range(len(start)):
        reachable = reachable | (reachable @ allowed)
    if not (reachable & end).any():
        raise ArgumentError(
            "`allowed`, `allowed_start` and `allowed_end` must allow at least one sequence. "
            "Received: constraints under which no end tag can be reached from a start tag. "
            "Allow more transitions, start tags or end tags."
        )


@dataclasses.dataclass
class _Request:
    layer: Any
    decode: bool
    outputs: dict[str, Any] | None = None


# A context variable, so that the call of a Functional model reaches its CRF layer.
_REQUEST: contextvars.ContextVar[_Request | None] = contextvars.ContextVar("REQUEST", default=None)


@contextlib.contextmanager
def request_scores(layer: LinearChainCRF, *, decode: bool) -> Iterator[None]:
    """Let a CRF layer record scores, mask and tags, to be read by `requested_outputs`.

    Metrics cannot decode the scores themselves: on JAX the weights are not available where metrics
    are updated.

    Args:
        layer: the layer.
        decode: bool, whether to decode tags too.
    """
    token = _REQUEST.set(_Request(layer, decode))
    try:
        yield
    finally:
        _REQUEST.reset(token)


def requested_outputs(layer: LinearChainCRF) -> dict[str, Any] | None:
    """The outputs that a layer recorded in `request_scores`, or None outside of it."""
    request = _REQUEST.get()
    if request is None or request.layer is not layer:
        return None
    outputs, request.outputs = request.outputs, None
    return outputs


def _with_previous_tags(tags, mask, start):
    """Tags and the tags of the previous real steps, `(time, batch)`; `start` before the first."""
    tags = ops.transpose(ops.cast(tags, "int32"))
    first = ops.full_like(tags[:1], start)
    if mask is None:
        return tags, ops.concatenate([first, tags[:-1]], axis=0)
    mask = mask[..., 0]
    tags = ops.where(mask, tags, ops.zeros_like(tags))
    # Sort real steps to the front, in their order. The tag before the n-th of them is then at
    # index n - 1.
    time = ops.shape(tags)[0]
    index = ops.arange(time, dtype="int32")[:, None]
    order = ops.argsort(ops.where(mask, index, index + time), axis=0)
    compact = ops.concatenate([first, ops.take_along_axis(tags, order, axis=0)], axis=0)
    count = ops.cumsum(ops.cast(mask, "int32"), axis=0)
    return tags, ops.take_along_axis(compact, ops.maximum(count - 1, 0), axis=0)
