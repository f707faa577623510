"""What a decoder says when nothing is given to it but the source: one loop inside the graph.

A loop knows a decoder as two functions of tensors whose first axis is the rows: `step`, from the
last tokens and the state to log-probabilities, the state after and the weights of attention; and
nothing else. It ends when every row has ended. A row that has ended says padding, at no cost.

Sources: [Sutskever et al., 2014](https://arxiv.org/abs/1409.3215), section 3.2, of the beam;
[Wu et al., 2016](https://arxiv.org/abs/1609.08144), equation 14, of the penalties;
[Holtzman et al., 2020](https://arxiv.org/abs/1904.09751), of `top_p`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from keras import ops, tree

from keras_seqzoo.layers.export_scope import argmax
from keras_seqzoo.layers.masking import PADDING

START, END = 2, 3  # tokens that a target begins and ends with
NEG_INF = -1e30


class DecodingResult(NamedTuple):
    """What a loop gives, all rows' answers or several of each.

    Attributes:
        sequences: int `(rows, [answers,] max_length)`, the end and what comes after it is padding;
            or readings `(rows, max_length, features)`.
        scores: `(rows, [answers])`, log-probabilities, that of the end among them; -inf of what is
            no answer; None of readings.
        attention: `(rows, [answers,] max_length, source)`, or None.
    """

    sequences: Any
    scores: Any
    attention: Any


Step = Callable[[Any, Any], tuple[Any, Any, Any]]


def greedy_search(
    step: Step, state: Any, rows: Any, max_length: int, choose: Callable, real: Any = None
) -> DecodingResult:
    """One answer per row, each token chosen by `choose`.

    Args:
        step: see above.
        state: before the first token.
        rows: how many.
        max_length: int, tokens at most, the end among them.
        choose: from `(rows, vocabulary)` and an int to int `(rows,)`.
        real: bool `(rows, source)`, real steps, to collect the weights of attention; or None.
    """
    places = ops.arange(max_length, dtype="int32")

    def body(count, token, state, tokens, scores, ended, attention):
        logs, after, weights = step(token, state)
        # Known again: where one row is broadcast, it may not be known that there is one.
        logs = ops.reshape(logs, (rows, logs.shape[-1]))
        state = tree.map_structure(_shaped, after, state)
        token = ops.cast(choose(_sayable(logs), count), "int32")
        token = ops.where(ended, PADDING, token)
        said = ops.take_along_axis(logs, token[:, None], axis=-1)[:, 0]
        scores = scores + ops.where(ended, 0.0, said)
        here = places[None] == count
        tokens = ops.where(here, token[:, None], tokens)
        if real is not None:
            seen = ops.where(ended[:, None], 0.0, _shaped(weights, attention[:, 0]))
            attention = ops.where(here[..., None], seen[:, None], attention)
        ended = ops.logical_or(ended, token == END)
        return count + 1, token, state, tokens, scores, ended, attention

    def continues(count, token, state, tokens, scores, ended, attention):
        return ops.logical_and(count < max_length, ops.logical_not(ops.all(ended)))

    attention = (
        () if real is None else ops.zeros((rows, max_length, ops.shape(real)[-1]), "float32")
    )
    _, _, _, tokens, scores, _, attention = ops.while_loop(
        continues,
        body,
        (
            ops.convert_to_tensor(0, "int32"),
            ops.full((rows,), START, dtype="int32"),
            state,
            ops.full((rows, max_length), PADDING, dtype="int32"),
            ops.zeros((rows,), "float32"),
            ops.zeros((rows,), dtype="bool"),
            attention,
        ),
        maximum_iterations=max_length,
    )
    return DecodingResult(_without_end(tokens), scores, None if real is None else attention)


def beam_search(
    step: Step,
    state: Any,
    rows: int,
    max_length: int,
    width: int,
    *,
    length_penalty: float = 0.0,
    coverage_penalty: float = 0.0,
    real: Any = None,
    attention: bool = False,
) -> DecodingResult:
    """The most probable answers of each row that a beam finds, the best first.

    After each step the `width` most probable beginnings of a row go on; where they cover all that
    can be said, the answers are exact.

    Args:
        step: see above; of `rows * width` rows, those of one row together.
        state: before the first token, of as many.
        rows: how many.
        max_length: int, tokens at most, the end among them.
        width: int, beginnings that go on.
        length_penalty: float, alpha; 0 ranks by log-probability, which favours short answers.
        coverage_penalty: float, beta; above 0 an answer loses that looked at some steps too little.
        real: bool `(rows * width, source)`, real steps; None without attention.
        attention: bool, whether to collect the weights.
    """
    places = ops.arange(max_length, dtype="int32")
    first = ops.arange(rows, dtype="int32")[:, None] * width  # where the beginnings of a row start

    def body(count, token, state, tokens, scores, ended, covered, seen):
        logs, after, weights = step(token, state)
        vocabulary = logs.shape[-1]
        logs = ops.reshape(logs, (rows, width, vocabulary))
        silent = ops.where(ops.arange(vocabulary) == PADDING, 0.0, NEG_INF)
        logs = ops.where(ended[..., None], silent, _sayable(logs))
        total = ops.reshape(scores[..., None] + logs, (rows, width * vocabulary))
        scores, chosen = ops.top_k(total, width)
        chosen = ops.cast(chosen, "int32")
        beam, token = chosen // vocabulary, chosen % vocabulary
        flat = ops.reshape(first + beam, (-1,))

        def follow(x):
            return ops.take(x, flat, axis=0)

        state = tree.map_structure(lambda x, y: _shaped(follow(x), y), after, state)
        here = places == count
        was_over = ops.take_along_axis(ended, beam, axis=1)
        tokens = ops.take_along_axis(tokens, beam[..., None], axis=1)
        tokens = ops.where(here, token[..., None], tokens)
        if real is not None:
            over = ops.reshape(was_over, (-1, 1))
            weights = ops.where(over, 0.0, follow(weights))
            covered = follow(covered) + weights
            if attention:
                seen = ops.where(here[None, :, None], weights[:, None], follow(seen))
        ended = ops.logical_or(was_over, token == END)
        return count + 1, ops.reshape(token, (-1,)), state, tokens, scores, ended, covered, seen

    def continues(count, token, state, tokens, scores, ended, covered, seen):
        return ops.logical_and(count < max_length, ops.logical_not(ops.all(ended)))

    source = 0 if real is None else ops.shape(real)[-1]
    scores = ops.cast(ops.where(ops.arange(width) == 0, 0.0, NEG_INF), "float32")
    _, _, _, tokens, scores, _, covered, seen = ops.while_loop(
        continues,
        body,
        (
            ops.convert_to_tensor(0, "int32"),
            ops.full((rows * width,), START, dtype="int32"),
            state,
            ops.full((rows, width, max_length), PADDING, dtype="int32"),
            ops.broadcast_to(scores[None], (rows, width)),
            ops.zeros((rows, width), dtype="bool"),
            () if real is None else ops.zeros((rows * width, source), "float32"),
            ops.zeros((rows * width, max_length, source), "float32") if attention else (),
        ),
        maximum_iterations=max_length,
    )
    lengths = ops.cast(ops.sum(ops.cast(tokens != PADDING, "int32"), axis=-1), scores.dtype)
    ranks = scores / ((5.0 + lengths) / 6.0) ** length_penalty
    if coverage_penalty:
        looked = ops.where(real, ops.log(ops.clip(covered, 1e-9, 1.0)), 0.0)
        looked = ops.reshape(ops.sum(looked, axis=-1), (rows, width))
        ranks = ranks + coverage_penalty * looked
    order = ops.argsort(-ranks, axis=-1)
    tokens = ops.take_along_axis(tokens, order[..., None], axis=1)
    scores = ops.take_along_axis(scores, order, axis=1)
    some = scores > NEG_INF / 2  # where less can be said than the beam is wide, the rest is nothing
    tokens = ops.where(some[..., None], tokens, PADDING)
    scores = ops.where(some, scores, -float("inf"))
    if attention:
        seen = ops.reshape(seen, (rows, width, max_length, -1))
        seen = ops.take_along_axis(seen, order[..., None, None], axis=1)
        seen = ops.where(some[..., None, None], seen, 0.0)
    return DecodingResult(_without_end(tokens), scores, seen if attention else None)


def autoregressive_rollout(
    step: Step, state: Any, first: Any, steps: int, real: Any = None
) -> DecodingResult:
    """So many readings per row, each from the one before.

    Args:
        step: from the last reading `(rows, features)` and the state to the next one, the state
            after and the weights of attention.
        state: before the first reading.
        first: `(rows, features)`, what stands before it.
        steps: int.
        real: bool `(rows, source)`, real steps, to collect the weights of attention; or None.
    """
    places = ops.arange(steps, dtype="int32")[None, :, None]

    def body(count, value, state, values, attention):
        after, moved, weights = step(value, state)
        value, state = _shaped(after, value), tree.map_structure(_shaped, moved, state)
        values = ops.where(places == count, value[:, None], values)
        if real is not None:
            attention = ops.where(places == count, weights[:, None], attention)
        return count + 1, value, state, values, attention

    rows, features = ops.shape(first)
    attention = () if real is None else ops.zeros((rows, steps, ops.shape(real)[-1]), "float32")
    values = ops.zeros((rows, steps, features), first.dtype)
    *_, values, attention = ops.while_loop(
        lambda count, *_: count < steps,
        body,
        (ops.convert_to_tensor(0, "int32"), first, state, values, attention),
        maximum_iterations=steps,
    )
    return DecodingResult(values, None, None if real is None else attention)


def argmax_sampler(logs, count):
    """Chooses the most probable token."""
    return argmax(logs)


def drawn(noise, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None):
    """Draws a token, as often as its probability says.

    Args:
        noise: `(rows, max_length, vocabulary)`, drawn from a standard Gumbel distribution.
        temperature: float above 0; below 1 probable tokens come more often yet.
        top_k: int, only of so many most probable ones; None for all.
        top_p: float in (0, 1], only of the most probable ones that together have this probability;
            None for all.
    """

    def choose(logs, count):
        logs = logs / temperature
        if top_k is not None:
            least = ops.top_k(logs, min(top_k, logs.shape[-1]))[0][:, -1:]
            logs = ops.where(logs < least, NEG_INF, logs)
        if top_p is not None:
            ordered = ops.flip(ops.sort(logs, axis=-1), axis=-1)
            before = ops.cumsum(ops.softmax(ordered, axis=-1), axis=-1) - ops.softmax(ordered, -1)
            kept = ops.where(before < top_p, ordered, -NEG_INF)
            logs = ops.where(logs < ops.min(kept, axis=-1, keepdims=True), NEG_INF, logs)
        return argmax(logs + ops.take(noise, count, axis=1))

    return choose


def _shaped(x, like):
    """With the static shape of what it takes the place of, which some operations lose."""
    return ops.reshape(x, ops.shape(like))


def _sayable(logs):
    """Log-probabilities without what is no answer."""
    token = ops.arange(logs.shape[-1])
    silent = ops.logical_or(token == PADDING, token == START)
    return ops.where(silent, NEG_INF, logs)


def _without_end(tokens):
    return ops.where(tokens == END, PADDING, tokens)
