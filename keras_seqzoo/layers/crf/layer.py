"""Tags that depend on each other: a linear-chain CRF as a layer, and the model that trains it."""

from __future__ import annotations

import contextlib
import contextvars
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_seqzoo.errors import ArgumentError
from keras_seqzoo.layers.crf.forward_backward import (
    NEG_INF,
    at_least,
    backward_messages,
    following_messages,
    log_messages,
    max_along,
    messages_with_backward,
    scan_steps,
)
from keras_seqzoo.layers.export_scope import argmax
from keras_seqzoo.layers.masking import PACKAGE
from keras_seqzoo.utils.argument_validation import (
    argument_message,
    check_positive,
    is_int,
)

# What each forbidden step costs a gold sequence: large, and float32 still knows the digits behind.
ILLEGAL = 1e4


@keras.saving.register_keras_serializable(package=PACKAGE)
class LinearChainCRF(keras.layers.Layer):
    """The most probable sequence of tags, where each tag's probability depends on the one before.

    A sequence weighs exp(start + sum of its steps' scores + sum of its transitions + end).
    Whatever the dtype policy, this is computed in float32 at least.

    Shapes: scores `(batch, time, classes)` -> tags `(batch, time)`, int32, 0 at padded steps.
    Masking: a padded step is left out, wherever it stands; the output carries the mask. A row
        without a real step is the empty sequence: its loss is 0.
    State: none kept between calls.

    Args:
        classes: int of at least 2, how many tags there are.
        allowed: nested list of bool `(classes, classes)`, [from][to], or None: which transitions
            there are. A sequence with any other is never predicted and has probability 0, save
            where a row is of a length that no allowed sequence has.
        allowed_start: list of bool `(classes,)` or None: tags a sequence may begin with.
        allowed_end: list of bool `(classes,)` or None: tags a sequence may end with.
        transition_initializer: of `transitions`, `start` and `end`.
        transition_regularizer: of `transitions`, `start` and `end`.
        **kwargs: as of `keras.layers.Layer`.

    Raises:
        ArgumentError: if an argument is none of these, or if no sequence at all is allowed.

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
        _check_some_sequence(*self._allowed())
        self.transition_initializer = keras.initializers.get(transition_initializer)
        self.transition_regularizer = keras.regularizers.get(transition_regularizer)
        self.supports_masking = True

    @property
    def _exact(self) -> str:
        return "float64" if self.compute_dtype == "float64" else "float32"

    def _allowed(self) -> list[np.ndarray]:
        """Transitions, starts and ends as arrays, all True where there is no constraint."""
        given = (self.allowed, self.allowed_start, self.allowed_end)
        shapes = ((self.classes, self.classes), (self.classes,), (self.classes,))
        return [
            np.ones(shape, bool) if one is None else np.array(one, bool)
            for one, shape in zip(given, shapes, strict=True)
        ]

    def build(self, input_shape):
        self._check_scores(input_shape)
        self.transitions = self._weight("transitions", (self.classes, self.classes))
        self.start = self._weight("start", (self.classes,))
        self.end = self._weight("end", (self.classes,))
        self.built = True

    def _weight(self, name, shape):
        return self.add_weight(
            name=name,
            shape=shape,
            dtype=self._exact,
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
        asked = REQUESTED.get()
        if asked is None or asked["layer"] is not self:
            return self.decode(scores, mask)
        found = {"scores": self._cast(scores)}
        if mask is not None:
            found["mask"] = ops.cast(mask, "bool")
        if asked["tags"]:
            found["tags"] = self.decode(ops.stop_gradient(found["scores"]), mask)
        asked["found"] = found
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
        """The most probable tags: Viterbi's algorithm.

        Shapes: scores `(batch, time, classes)` -> `(batch, time)`, int32.
        Masking: `mask` `(batch, time)`, True for real steps; padded steps get tag 0.
        State: none.
        """
        scores, real, steps, end = self._chain(scores, mask)
        best, _ = log_messages(scores, steps, end, real, max_along)

        def step(before, inputs):
            score, after, *known = inputs
            total = ops.take(steps, before, axis=0) + score + after
            # Never the start state, not even where no sequence is allowed.
            tag = ops.cast(argmax(total[:, : self.classes]), "int32")
            if not known:
                return tag, (tag,)
            now = known[0][:, 0]
            return ops.where(now, tag, before), (ops.where(now, tag, 0),)

        before = ops.full(ops.shape(scores)[1:2], self.classes, "int32")
        inputs = [scores, following_messages(best, end)] + ([] if real is None else [real])
        _, (tags,) = scan_steps(step, before, inputs, [("int32", (None,))])
        return ops.transpose(tags)

    def step_losses(self, scores, tags, mask=None):
        """The negative log-likelihood of each tag, given the scores and the tag before.

        Their sum over real steps is that of the sequence, exactly, by the chain rule; so a weight
        for each step means something. A forbidden transition, start or end among `tags` costs
        10,000, which has no gradient for the constraint: large, but finite.

        Shapes: scores `(batch, time, classes)`, tags `(batch, time)` -> `(batch, time)`.
        Masking: `mask` `(batch, time)`, True for real steps; padded steps get 0, whatever their
            tag is. Tags of real steps must be in [0, classes).
        State: none.
        """
        tags = ops.convert_to_tensor(tags)
        _check_steps("tags", tags.shape)
        scores, real, steps, end = self._chain(scores, mask)
        messages, scales = backward_messages(scores, steps, end, real)
        after = following_messages(messages, end)
        if self._constrained:
            messages, after, steps = (at_least(x, -ILLEGAL) for x in (messages, after, steps))
        tags, before = _with_the_one_before(tags, real, self.classes)
        size = self.classes + 1
        # One-hot, since the gradient of a lookup is a slow scatter.
        losses = (
            ops.sum(messages * ops.one_hot(before, size, dtype=self._exact), axis=-1)
            + scales[..., 0]
            - ops.sum((scores + after) * ops.one_hot(tags, size, dtype=self._exact), axis=-1)
            - ops.take(ops.reshape(steps, (-1,)), before * size + tags)
        )
        if real is not None:
            losses = ops.where(real[..., 0], losses, ops.zeros_like(losses))
        return ops.transpose(losses)

    def log_normalizer(self, scores, mask=None):
        """The log of the summed weights of all sequences.

        Shapes: scores `(batch, time, classes)` -> `(batch,)`.
        Masking: `mask` `(batch, time)`, True for real steps; 0 for a row without any.
        State: none.
        """
        scores, real, steps, end = self._chain(scores, mask)
        messages, scales = backward_messages(scores, steps, end, real)
        total = messages[0, :, self.classes] + ops.sum(scales[..., 0], axis=0)
        total = total + self._end_scale()
        if real is None:
            return total
        return ops.where(ops.any(real[..., 0], axis=0), total, ops.zeros_like(total))

    def marginals(self, scores, mask=None):
        """The probability of each tag at each step, over all sequences. It has no gradient.

        Shapes: scores `(batch, time, classes)` -> `(batch, time, classes)`.
        Masking: `mask` `(batch, time)`, True for real steps; padded steps get 0.
        State: none.
        """
        scores, real, steps, end = self._chain(scores, mask)
        _, adjoint = messages_with_backward(scores, steps, end, real)
        # They are the gradient of the log normalizer, which is the first message at the start.
        first = ops.zeros_like(scores[:1, :, :-1])
        first = ops.concatenate([first, ops.ones_like(scores[:1, :, :1])], axis=-1)
        gradient = ops.concatenate([first, ops.zeros_like(scores[1:])], axis=0)
        flows, _, _ = adjoint(gradient)
        return ops.stop_gradient(ops.transpose(flows[..., : self.classes], (1, 0, 2)))

    def n_best(self, scores, n: int, mask=None):
        """The `n` most probable sequences, best first, and their log-probabilities.

        Shapes: scores `(batch, time, classes)` -> tags `(batch, n, time)`, int32, and `(batch, n)`.
        Masking: `mask` `(batch, time)`, True for real steps; padded steps get tag 0.
        State: none.

        Args:
            scores: `(batch, time, classes)`.
            n: positive int. Where there are fewer sequences, the rest is tags 0 with
                log-probability -inf.
            mask: `(batch, time)`, bool, or None.
        """
        check_positive(n=n)
        tags, exists = self._n_best_tags(*self._chain(scores, mask), n)
        scores = ops.repeat(scores, n, axis=0)
        flat = ops.reshape(tags, (-1, ops.shape(tags)[2]))
        repeated = None if mask is None else ops.repeat(mask, n, axis=0)
        losses = ops.sum(self.step_losses(scores, flat, repeated), axis=-1)
        losses = ops.reshape(losses, (-1, n))
        return tags, ops.where(exists, -losses, -ops.full_like(losses, np.inf))

    def _n_best_tags(self, scores, real, steps, end, n):
        """`(batch, n, time)`, and whether there is such a sequence `(batch, n)`."""
        classes, known = self.classes, [] if real is None else [real]
        batch = ops.shape(scores)[1]

        def step(best, inputs):  # best (batch, classes + 1, n): from each tag to the end
            score, *known = inputs
            total = (score[..., None] + best)[:, None, :classes] + steps[None, :, :classes, None]
            found, place = ops.top_k(ops.reshape(total, (-1, classes + 1, classes * n)), n)
            top = max_along(found, axis=(1, 2), keepdims=True)
            found = ops.maximum(found - ops.where(top > NEG_INF / 2, top, 0), NEG_INF)
            if known:
                found = ops.where(known[0][..., None], found, best)
            return found, (ops.cast(place, "int32"),)

        best = ops.concatenate(
            [end[:, None], ops.full((classes + 1, n - 1), NEG_INF, end.dtype)], 1
        )
        best = ops.broadcast_to(best, (batch, classes + 1, n))
        spec = [("int32", (None, classes + 1, n))]
        best, (places,) = scan_steps(step, best, [scores, *known], spec, reverse=True)

        def follow(carry, inputs):
            tag, rank = carry  # each (batch, n)
            place, *known = inputs
            place = ops.reshape(place, (-1, (classes + 1) * n))
            place = ops.take_along_axis(place, tag * n + rank, axis=1)
            chosen, next_rank = place // n, place % n
            if not known:
                return (chosen, next_rank), (chosen,)
            now = known[0]
            carry = ops.where(now, chosen, tag), ops.where(now, next_rank, rank)
            return carry, (ops.where(now, chosen, 0),)

        tag = ops.full((batch, n), classes, "int32")
        rank = ops.zeros_like(tag) + ops.arange(n, dtype="int32")
        _, (tags,) = scan_steps(follow, (tag, rank), [places, *known], [("int32", (None, n))])
        exists = best[:, classes] > NEG_INF / 2
        tags = ops.transpose(tags, (1, 2, 0))
        return ops.where(exists[..., None], tags, 0), exists

    @property
    def _constrained(self) -> bool:
        return not all(one.all() for one in self._allowed())

    def _cast(self, scores):
        scores = ops.convert_to_tensor(scores)
        self._check_scores(scores.shape)
        return ops.cast(scores, self._exact)

    def _chain(self, scores, mask):
        """Everything with one state more, the start, and with time first.

        Returns scores `(time, batch, classes + 1)`, real `(time, batch, 1)` or None, log weights
        of steps `(classes + 1, classes + 1)`, [from, to], and of ends `(classes + 1,)`, of which
        the greatest is 0. No step leads to the start; only the empty sequence ends there.
        """
        scores = self._cast(scores)
        if not self.built:
            self.build(scores.shape)
        scores = ops.transpose(scores, (1, 0, 2))
        real = None
        if mask is not None:
            mask = ops.convert_to_tensor(mask)
            _check_steps("mask", mask.shape)
            real = ops.transpose(ops.cast(mask, "bool"))[..., None]
            scores = ops.where(real, scores, ops.zeros_like(scores))  # padding may be NaN
        scores = ops.pad(scores, [[0, 0], [0, 0], [0, 1]])
        transitions, starts, _ = self._allowed()
        rows = [ops.convert_to_tensor(self.transitions), ops.convert_to_tensor(self.start)[None]]
        steps = ops.concatenate(rows, axis=0)
        steps = ops.where(np.vstack([transitions, starts]), steps, NEG_INF)
        steps = ops.pad(steps, [[0, 0], [0, 1]], constant_values=NEG_INF)
        end = ops.pad(self._ends() - self._end_scale(), [[0, 1]])
        return scores, real, steps, end

    def _ends(self):
        return ops.where(self._allowed()[2], ops.convert_to_tensor(self.end), NEG_INF)

    def _end_scale(self):
        return ops.stop_gradient(max_along(self._ends()))


def _booleans(name: str, given: Any, shape: tuple[int, ...]) -> list | None:
    if given is None:
        return None
    try:
        array = np.asarray(given)
    except ValueError:  # ragged
        array = np.empty(0)
    if array.shape != shape or array.dtype != bool:
        raise ArgumentError(argument_message(name, f"None or bools of shape {shape}", given))
    return array.tolist()


def _check_steps(name: str, shape) -> None:
    if len(shape) != 2:
        raise ArgumentError(argument_message(name, "of shape (batch, time)", tuple(shape)))


def _check_some_sequence(allowed, start, end) -> None:
    reached = start
    for _ in range(len(start)):
        reached = reached | (reached @ allowed)
    if not (reached & end).any():
        raise ArgumentError(
            "`allowed`, `allowed_start` and `allowed_end` must leave at least one sequence. "
            "Received: no tag that may end a sequence can be reached from one that may start it. "
            "Allow more."
        )


# Which CRF layer is to give its scores, whether tags too, and what it gave. Metrics cannot decode
# themselves: JAX holds no weights where it updates them.
REQUESTED: contextvars.ContextVar[dict | None] = contextvars.ContextVar("REQUESTED", default=None)


@contextlib.contextmanager
def request_scores(layer, *, tags: bool):
    token = REQUESTED.set({"layer": layer, "tags": tags})
    try:
        yield
    finally:
        REQUESTED.reset(token)


def _with_the_one_before(tags, real, start):
    """Tags and those of the real step before, each `(time, batch)`; `start` where there is none."""
    tags = ops.transpose(ops.cast(tags, "int32"))
    none = ops.full_like(tags[:1], start)
    if real is None:
        return tags, ops.concatenate([none, tags[:-1]], axis=0)
    real = real[..., 0]
    tags = ops.where(real, tags, ops.zeros_like(tags))
    # Real steps moved together, in their order; the n-th of them follows what is n-th here.
    time = ops.shape(tags)[0]
    place = ops.arange(time, dtype="int32")[:, None]
    order = ops.argsort(ops.where(real, place, place + time), axis=0)
    together = ops.concatenate([none, ops.take_along_axis(tags, order, axis=0)], axis=0)
    count = ops.cumsum(ops.cast(real, "int32"), axis=0)
    return tags, ops.take_along_axis(together, ops.maximum(count - 1, 0), axis=0)
