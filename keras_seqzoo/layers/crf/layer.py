"""Tags that depend on each other: a linear-chain CRF as a layer, and the model that trains it."""

from __future__ import annotations

import contextlib
import contextvars
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_seqzoo.errors import ArgumentError
from keras_seqzoo.layers.masking import PACKAGE, ApplyMask
from keras_seqzoo.layers.export_scope import argmax, is_portable, scan
from keras_seqzoo.utils.argument_validation import (
    argument_message,
    check_choice,
    check_positive,
    check_sequence,
    is_int,
)

# The log weight of what cannot be. It is finite, since infinity times 0 is NaN; whatever is this
# low is set to it again after each step, so that it does not add up.
NEVER = -1e30
# What each forbidden step costs a gold sequence: large, and float32 still knows the digits behind.
ILLEGAL = 1e4
# exp(-230) * exp(-230) * exp(-230) is a normal float64. What is floored there counts for nothing
# beside anything above exp(-200).
FLOOR, SAFE = -230.0, -200.0


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
        asked = _ASKED.get()
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
        best, _ = _log_messages(scores, steps, end, real, _max)

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
        inputs = [scores, _after(best, end)] + ([] if real is None else [real])
        _, (tags,) = _scan(step, before, inputs, [("int32", (None,))])
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
        messages, scales = _messages(scores, steps, end, real)
        after = _after(messages, end)
        if self._constrained:
            messages, after, steps = (_at_least(x, -ILLEGAL) for x in (messages, after, steps))
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
        messages, scales = _messages(scores, steps, end, real)
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
        _, adjoint = _messages_and_adjoint(scores, steps, end, real)
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
            top = _max(found, axis=(1, 2), keepdims=True)
            found = ops.maximum(found - ops.where(top > NEVER / 2, top, 0), NEVER)
            if known:
                found = ops.where(known[0][..., None], found, best)
            return found, (ops.cast(place, "int32"),)

        best = ops.concatenate([end[:, None], ops.full((classes + 1, n - 1), NEVER, end.dtype)], 1)
        best = ops.broadcast_to(best, (batch, classes + 1, n))
        spec = [("int32", (None, classes + 1, n))]
        best, (places,) = _scan(step, best, [scores, *known], spec, reverse=True)

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
        _, (tags,) = _scan(follow, (tag, rank), [places, *known], [("int32", (None, n))])
        exists = best[:, classes] > NEVER / 2
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
        steps = ops.where(np.vstack([transitions, starts]), steps, NEVER)
        steps = ops.pad(steps, [[0, 0], [0, 1]], constant_values=NEVER)
        end = ops.pad(self._ends() - self._end_scale(), [[0, 1]])
        return scores, real, steps, end

    def _ends(self):
        return ops.where(self._allowed()[2], ops.convert_to_tensor(self.end), NEVER)

    def _end_scale(self):
        return ops.stop_gradient(_max(self._ends()))


@keras.saving.register_keras_serializable(package=PACKAGE)
class CRFModel(keras.Model):
    """A model that ends in a `LinearChainCRF` and is trained by its likelihood.

    The loss is the mean over real steps of `LinearChainCRF.step_losses`, with `sample_weight`
    `(batch,)` or `(batch, time)` multiplied in as Keras does. `y` is int `(batch, time)`; tags of
    real steps must be in [0, classes). Metrics get the predicted tags one-hot, `(batch, time,
    classes)`, and the mask; in training they cost a decoding of each batch. Keras's `class_weight`
    knows one class a row; give `sample_weight` for each step instead.

    Shapes: those of `inputs` -> `(batch, time)`, int32, the most probable tags.
    Masking: that of the CRF layer.
    State: none kept between calls.

    Args:
        inputs: as of `keras.Model`.
        outputs: what a `LinearChainCRF` gave.
        name: str or None.
        **kwargs: as of `keras.Model`.

    Raises:
        ArgumentError: if `outputs` does not come from a `LinearChainCRF`.

    Example:

    >>> from keras_seqzoo.layers import CRFModel, LinearChainCRF
    >>> inputs = keras.Input((None, 4))
    >>> model = CRFModel(inputs, LinearChainCRF(3)(keras.layers.Dense(3)(inputs)))
    >>> model.compile("adam", metrics=["accuracy"])
    >>> x, y = np.ones((8, 5, 4)), np.ones((8, 5), int)
    >>> _ = model.fit(x, y, verbose=0)
    >>> model.predict(x, verbose=0).shape
    (8, 5)
    """

    def __init__(self, inputs, outputs, name=None, **kwargs: Any):
        super().__init__(inputs, outputs, name=name, **kwargs)
        if len(self.outputs) != 1 or not isinstance(_crf(self), LinearChainCRF):
            hint = "Call the layer last."
            raise ArgumentError(
                argument_message("outputs", "what one LinearChainCRF layer gave", outputs, hint)
            )

    def compile(self, optimizer="rmsprop", loss=None, **options: Any) -> None:
        """As `keras.Model.compile`, without a loss: the CRF is the loss.

        Raises:
            ArgumentError: if `loss` is given.
        """
        if loss is not None:
            hint = "The loss is the negative log-likelihood of the tags; leave this out."
            raise ArgumentError(argument_message("loss", "None", loss, hint))
        self._decodes = bool(options.get("metrics") or options.get("weighted_metrics"))
        super().compile(optimizer, **options)

    def compile_from_config(self, config):
        # Keras's own refuses a model with a `compile` of its own.
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    def call(self, inputs, training=None, mask=None):
        asked = _ASKED.get()
        if asked is None or asked["layer"] is not _crf(self):
            return super().call(inputs, training=training, mask=mask)
        super().call(inputs, training=training, mask=mask)
        return asked.pop("found")

    def probabilities(self, inputs, *, training: bool = False):
        """The probability of each tag at each step, `(batch, time, classes)`, 0 at padded steps.

        Args:
            inputs: as of the model itself.
            training: bool, with dropout or without.
        """
        crf = _crf(self)
        with _asking(crf, tags=False):
            found = self(inputs, training=training)
        return crf.marginals(found["scores"], found.get("mask"))

    def train_step(self, *args):
        with _asking(_crf(self), tags=self._decodes):
            return super().train_step(*args)

    def test_step(self, *args):
        with _asking(_crf(self), tags=self._decodes):
            return super().test_step(*args)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        mask = y_pred.get("mask")
        losses = _crf(self).step_losses(y_pred["scores"], y, mask)
        mean = _GivenLosses(name="mean_over_steps", dtype=losses.dtype)
        loss = mean(losses, losses, _step_weights(losses, sample_weight, mask))
        if self.losses:
            loss = loss + super().compute_loss(x, y, y_pred, sample_weight, training)
        return loss

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        if self._decodes:
            y_pred = self._one_hot_tags(y_pred)
            sample_weight = _of_steps(sample_weight, y_pred[..., 0])
        return super().compute_metrics(x, y, y_pred, sample_weight)

    def _one_hot_tags(self, y_pred):
        if not isinstance(y_pred, dict):  # Keras builds metrics on what the model itself gives
            y_pred = {"tags": y_pred}
        tags = ops.one_hot(ops.cast(y_pred["tags"], "int32"), _crf(self).classes, dtype="float32")
        if "mask" not in y_pred:
            return tags
        return ApplyMask(name="mask", dtype="float32")([tags, y_pred["mask"]])


def bio_constraints(tag_names: list[str], scheme: str = "BIO") -> dict[str, list]:
    """Which tags may follow which, where tags mark spans, for `LinearChainCRF(n, **constraints)`.

    "BIO": `I-x` only after `B-x` or `I-x`. "BIOES": a span is `B-x`, any number of `I-x` and
    `E-x`, or the single `S-x`, and is always closed.

    Args:
        tag_names: list of str in the order of the tags: "O", "B-x", "I-x", and "E-x" and "S-x" in
            the scheme "BIOES", for any kinds x of spans.
        scheme: "BIO" or "BIOES".

    Returns:
        dict with `allowed`, `allowed_start` and `allowed_end`, lists of bool.

    Raises:
        ArgumentError: if a name is none of these or comes twice, or the scheme is neither.

    Example:

    >>> from keras_seqzoo.layers import bio_constraints
    >>> bio_constraints(["O", "B-city", "I-city"])["allowed"]
    [[True, True, False], [True, True, True], [True, True, True]]

    Reference: [Ramshaw & Marcus, 1995](https://aclanthology.org/W95-0107)
    """
    check_choice("scheme", scheme, ("BIO", "BIOES"))
    check_sequence(tag_names=tag_names)
    tags = [_parsed(name, scheme) for name in tag_names]
    if len(tags) < 2 or len(set(tags)) < len(tags):
        raise ArgumentError(
            argument_message("tag_names", "at least two different names", tag_names)
        )
    outside = ("O", "")
    return {
        "allowed": [[_may_follow(a, b, scheme) for b in tags] for a in tags],
        "allowed_start": [_may_follow(outside, tag, scheme) for tag in tags],
        "allowed_end": [_may_follow(tag, outside, scheme) for tag in tags],
    }


def _parsed(name: Any, scheme: str) -> tuple[str, str]:
    name = name if isinstance(name, str) else ""
    position, _, kind = name.partition("-")
    if name != "O" and not (kind and position in set(scheme) - {"O"}):
        marks = " or ".join(f'"{mark}-..."' for mark in scheme if mark != "O")
        raise ArgumentError(argument_message("tag_names", f'names that are "O" or {marks}', name))
    return position, kind


def _may_follow(before: tuple[str, str], after: tuple[str, str], scheme: str) -> bool:
    is_open = before[0] in ("B", "I")
    if after[0] in ("I", "E"):
        return is_open and before[1] == after[1]
    return scheme == "BIO" or not is_open


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


# ------------------------------------------------------------------------------- loss of the model

# Which CRF layer is to give its scores, whether tags too, and what it gave. Metrics cannot decode
# themselves: JAX holds no weights where it updates them.
_ASKED: contextvars.ContextVar[dict | None] = contextvars.ContextVar("_ASKED", default=None)


@contextlib.contextmanager
def _asking(layer, *, tags: bool):
    token = _ASKED.set({"layer": layer, "tags": tags})
    try:
        yield
    finally:
        _ASKED.reset(token)


def _crf(model):
    # Not an attribute: the layer's weights would be saved under its name.
    return model.outputs[0]._keras_history.operation


class _GivenLosses(keras.losses.Loss):
    """Keras's reduction, for losses that are there already."""

    def call(self, y_true, y_pred):
        return y_pred


def _step_weights(losses, sample_weight, mask=None):
    """What Keras makes of weights and a mask: the weighted sum over the number of real steps."""
    weights = _of_steps(sample_weight, losses)
    if mask is None:
        return weights
    real = ops.cast(mask, losses.dtype)
    total = ops.cast(ops.prod(ops.convert_to_tensor(ops.shape(real), "int32")), losses.dtype)
    real = real * ops.divide_no_nan(total, ops.sum(real))
    return real if weights is None else real * weights


def _of_steps(sample_weight, like):
    """Weights of rows or of steps as `(batch, time)`, as `like` is, or None.

    In full: on PyTorch, Keras multiplies a mask into weights where they are.
    """
    if sample_weight is None:
        return None
    weights = ops.cast(sample_weight, like.dtype)
    return ops.ones_like(like) * (weights if len(weights.shape) > 1 else weights[:, None])


# ---------------------------------------------------------------------------------------- messages
#
# The message at a step, for a tag before it, is the log weight of all that may come from this step
# on: messages[t, i] = log sum_j exp(steps[i, j] + scores[t, j] + messages[t + 1, j]). At a padded
# step it is that of the step after. What is returned is the message less its greatest entry, and
# that entry, the scale: so nothing grows over time, and differences keep float32's precision. For
# gradients the scale is a constant, and the message's gradient is that of the whole.


def _messages(scores, steps, end, real):
    """Messages `(time, batch, states)` and scales `(time, batch, 1)`, differentiable."""
    if keras.backend.backend() != "tensorflow":
        return _log_messages(scores, steps, end, real, ops.logsumexp)
    from keras_seqzoo.layers.custom_gradient import custom_gradient

    @custom_gradient
    def messages(scores, steps, end):
        found, adjoint = _messages_and_adjoint(scores, steps, end, real)
        return found, lambda gradient, _: adjoint(gradient)

    return messages(scores, steps, end)


def _messages_and_adjoint(scores, steps, end, real):
    """Messages and scales; and a function from the gradient by the messages to those by the scores
    `(time, batch, states)`, the steps `(states, states)` and the ends `(states,)`.
    """
    if keras.backend.backend() == "tensorflow":
        return _scaled_messages_and_adjoint(scores, steps, end, real)
    found = _log_messages(scores, steps, end, real, ops.logsumexp)
    return found, lambda gradient: _log_adjoint(gradient, scores, steps, end, real, *found)


def _log_messages(scores, steps, end, real, reduce):
    """In logarithms, right for any scores. With `_max` for `reduce`: of the best sequence."""
    states = steps.shape[0]

    def step(after, inputs):
        score, *known = inputs
        now = reduce(steps + (score + after)[:, None], axis=-1)
        top = ops.stop_gradient(_max(now, axis=-1, keepdims=True))
        top = ops.where(top > NEVER / 2, top, ops.zeros_like(top))
        now = ops.maximum(now - top, NEVER)
        if known:
            now = ops.where(known[0], now, after)
            top = ops.where(known[0], top, ops.zeros_like(top))
        return now, (now, top)

    first = ops.broadcast_to(end, (ops.shape(scores)[1], states))
    inputs = [scores] if real is None else [scores, real]
    dtype = keras.backend.standardize_dtype(scores.dtype)
    spec = [(dtype, (None, states)), (dtype, (None, 1))]
    return _scan(step, first, inputs, spec, reverse=True)[1]


def _log_adjoint(gradient, scores, steps, end, real, messages, scales):
    states = steps.shape[0]

    def step(carry, inputs):
        flow, total = carry
        direct, score, message, after, scale, *known = inputs
        flow = flow + direct
        # The probability of each next tag, given this one; below 1 also where rounding is coarse.
        chance = steps + (score + after)[:, None] - (message + scale)[:, :, None]
        moved = flow[:, :, None] * ops.exp(ops.minimum(chance, 0))
        if known:
            moved = ops.where(known[0][:, :, None], moved, ops.zeros_like(moved))
        arrived = ops.sum(moved, axis=1)
        kept = ops.where(known[0], arrived, flow) if known else arrived
        return (kept, total + ops.sum(moved, axis=0)), (arrived,)

    inputs = [gradient, scores, messages, _after(messages, end), scales]
    inputs += [] if real is None else [real]
    carry = (ops.zeros_like(gradient[0]), ops.zeros_like(steps))
    spec = [(keras.backend.standardize_dtype(scores.dtype), (None, states))]
    (flow, total), (arrived,) = _scan(step, carry, inputs, spec)
    return arrived, total, ops.sum(flow, axis=0)


def _scaled_messages_and_adjoint(scores, steps, end, real):
    """The same, many times faster on a CPU: products of float64 instead of logarithms.

    Each step's weights are scaled to at most 1 and floored at exp(-230), which keeps 0 for what is
    forbidden. Where a message gets so low that the floor might be felt, logarithms take over.
    """
    dtype, states = scores.dtype, steps.shape[0]
    scores, steps, end = (ops.cast(x, "float64") for x in (scores, steps, end))
    top_score = _max(scores[..., :-1], axis=-1, keepdims=True)
    top_step = _max(steps)
    score_weights = ops.exp(ops.maximum(scores - top_score, FLOOR))
    step_weights = _weights(steps - top_step)
    ends = ops.broadcast_to(_weights(end), (ops.shape(scores)[1], states))
    known = [] if real is None else [real]
    backwards = ops.transpose(step_weights)

    def step(after, inputs):
        weight, *known = inputs
        now = ops.matmul(weight * after, backwards)
        top = _max(now, axis=-1, keepdims=True)
        now = ops.divide_no_nan(now, top)
        if known:
            now = ops.where(known[0], now, after)
        return now, (now, top)

    spec = [("float64", (None, states)), ("float64", (None, 1))]
    _, (weights, tops) = _scan(step, ends, [score_weights, *known], spec, reverse=True)
    least = -_max(ops.where(weights > 0, -weights, -1), axis=-1, keepdims=True) * tops
    low = ops.logical_and(tops > 0, least < np.exp(SAFE))
    low = ops.any(low if real is None else ops.logical_and(low, real))

    def in_logarithms():
        return _log_messages(scores, steps, end, real, ops.logsumexp)

    def in_products():
        scales = ops.where(tops > 0, ops.log(tops) + top_score + top_step, 0)
        scales = scales if real is None else ops.where(real, scales, 0)
        return [ops.maximum(ops.log(weights), NEVER), scales]

    messages, scales = ops.cond(low, in_logarithms, in_products)

    def adjoint(gradient):
        gradient = ops.cast(gradient, "float64")

        def of_products():
            after = score_weights * ops.concatenate([weights[1:], ends[None]], axis=0)
            return _scaled_adjoint(gradient, after, step_weights, weights * tops, real)

        def of_logarithms():
            return _log_adjoint(gradient, scores, steps, end, real, messages, scales)

        return [ops.cast(one, dtype) for one in ops.cond(low, of_logarithms, of_products)]

    return [ops.cast(messages, dtype), ops.cast(scales, dtype)], adjoint


def _scaled_adjoint(gradient, after, step_weights, raw, real):
    states = step_weights.shape[0]
    moves = ops.ones_like(raw[..., :1]) if real is None else ops.cast(real, raw.dtype)
    share = ops.divide_no_nan(moves, raw)  # 0 at padded steps
    known = [] if real is None else [real]

    def step(flow, inputs):
        direct, weight, part, *known = inputs
        flow = flow + direct
        part = flow * part
        arrived = ops.matmul(part, step_weights) * weight
        kept = ops.where(known[0], arrived, flow) if known else arrived
        return kept, (part, arrived)

    inputs = [gradient, after, share, *known]
    spec = [("float64", (None, states))] * 2
    flow, (parts, arrived) = _scan(step, ops.zeros_like(gradient[0]), inputs, spec)
    parts, after = (ops.reshape(x, (-1, states)) for x in (parts, after))
    total = step_weights * ops.matmul(ops.transpose(parts), after)
    return arrived, total, ops.sum(flow, axis=0)


def _weights(logarithms):
    weights = ops.exp(ops.maximum(logarithms, FLOOR))
    return ops.where(logarithms > NEVER / 2, weights, ops.zeros_like(weights))


def _max(x, axis=None, keepdims=False):
    """As `ops.max`, which refuses an empty batch unless it is told what to begin with."""
    return ops.max(x, axis=axis, keepdims=keepdims, initial=-np.inf)


def _after(messages, end):
    """For each step the message behind it."""
    last = ops.broadcast_to(end, (1, *ops.shape(messages)[1:]))
    return ops.concatenate([messages[1:], last], axis=0)


def _at_least(x, least):
    """With `least` for what cannot be: a sequence that is forbidden has a finite loss."""
    return ops.where(x > NEVER / 2, x, ops.full_like(x, least))


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


def _scan(step, carry, inputs, spec, reverse=False):
    """`ops.scan` over a list of inputs, whose outputs need not look like the carry.

    TensorFlow's takes shapes and types of the outputs from the carry, hence a loop of our own and
    `spec`, the type and shape of each output of a step.
    """
    if keras.backend.backend() != "tensorflow":
        return scan(step, carry, tuple(inputs), reverse=reverse)
    import tensorflow as tf

    turned = reverse and is_portable()
    inputs = [ops.flip(x, 0) for x in inputs] if turned else inputs
    length = tf.shape(inputs[0])[0]
    inputs = [tf.TensorArray(x.dtype, length, element_shape=x.shape[1:]).unstack(x) for x in inputs]
    rows = inputs[0].element_shape[0]  # where they are known, converters must be told
    arrays = [
        tf.TensorArray(dtype, length, element_shape=(rows, *shape[1:])) for dtype, shape in spec
    ]

    def body(count, carry, arrays):
        at = length - 1 - count if reverse and not turned else count
        carry, outputs = step(carry, [one.read(at) for one in inputs])
        written = [array.write(at, one) for array, one in zip(arrays, outputs, strict=True)]
        return count + 1, carry, written

    _, carry, arrays = tf.while_loop(lambda i, *_: i < length, body, (0, carry, arrays))
    found = [array.stack() for array in arrays]
    return carry, [ops.flip(x, 0) for x in found] if turned else found
