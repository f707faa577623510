"""Greedy search, sampling and beam search for autoregressive decoders, as loops inside the graph.

A loop knows the decoder as one function, a `StepFunction`, from the last tokens and the state to
log-probabilities, the next state and attention weights. It stops when every sequence is finished. A
finished sequence is continued with padding of log-probability 0.

References: [Sutskever et al., 2014](https://arxiv.org/abs/1409.3215), section 3.2, beam search;
[Wu et al., 2016](https://arxiv.org/abs/1609.08144), equation 14, length and coverage penalties;
[Holtzman et al., 2020](https://arxiv.org/abs/1904.09751), nucleus sampling (`top_p`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from keras import ops, tree

from keras_seqzoo.layers.export_scope import argmax
from keras_seqzoo.layers.masking import PADDING

START, END = 2, 3  # tokens that a target begins and ends with
NEG_INF = -1e30

# (last tokens or readings, state) -> (log-probabilities or readings, next state, attention weights)
StepFunction = Callable[[Any, Any], tuple[Any, Any, Any]]
# (log-probabilities `(batch, vocabulary)`, index of the step) -> tokens `(batch,)`
Sampler = Callable[[Any, Any], Any]


class DecodingResult(NamedTuple):
    """Decoded sequences with their scores and attention weights.

    Attributes:
        sequences: int `(batch, [num_beams,] max_length)`, with padding from the end token on; or
            readings `(batch, max_length, features)`.
        scores: `(batch, [num_beams])`, log-probabilities, the end token included; -inf for beams
            that hold no hypothesis; None for readings.
        attention: `(batch, [num_beams,] max_length, source)`, or None.
    """

    sequences: Any
    scores: Any
    attention: Any


def greedy_search(
    step: StepFunction,
    state: Any,
    batch_size: Any,
    max_length: int,
    sampler: Sampler,
    source_mask: Any = None,
) -> DecodingResult:
    """Decodes one sequence per row, each token chosen by `sampler`.

    Args:
        step: `StepFunction` of the decoder.
        state: state before the first token.
        batch_size: int, or an int tensor.
        max_length: int, tokens at most, the end token included.
        sampler: `argmax_sampler`, or the result of `categorical_sampler`.
        source_mask: bool `(batch, source)`, to collect attention weights; or None.
    """
    positions = ops.arange(max_length, dtype="int32")

    def body(index, token, state, tokens, scores, finished, attention):
        log_probs, next_state, weights = step(token, state)
        # Restores the static batch size, which is lost where a batch of one is broadcast.
        log_probs = ops.reshape(log_probs, (batch_size, log_probs.shape[-1]))
        state = tree.map_structure(_with_shape_of, next_state, state)
        token = ops.cast(sampler(_mask_special_tokens(log_probs), index), "int32")
        token = ops.where(finished, PADDING, token)
        log_prob = ops.take_along_axis(log_probs, token[:, None], axis=-1)[:, 0]
        scores = scores + ops.where(finished, 0.0, log_prob)
        at_index = positions[None] == index
        tokens = ops.where(at_index, token[:, None], tokens)
        if source_mask is not None:
            weights = _with_shape_of(weights, attention[:, 0])
            weights = ops.where(finished[:, None], 0.0, weights)
            attention = ops.where(at_index[..., None], weights[:, None], attention)
        finished = ops.logical_or(finished, token == END)
        return index + 1, token, state, tokens, scores, finished, attention

    def any_unfinished(index, token, state, tokens, scores, finished, attention):
        return ops.logical_and(index < max_length, ops.logical_not(ops.all(finished)))

    attention = ()
    if source_mask is not None:
        attention = ops.zeros((batch_size, max_length, ops.shape(source_mask)[-1]), "float32")
    _, _, _, tokens, scores, _, attention = ops.while_loop(
        any_unfinished,
        body,
        (
            ops.convert_to_tensor(0, "int32"),
            ops.full((batch_size,), START, dtype="int32"),
            state,
            ops.full((batch_size, max_length), PADDING, dtype="int32"),
            ops.zeros((batch_size,), "float32"),
            ops.zeros((batch_size,), dtype="bool"),
            attention,
        ),
        maximum_iterations=max_length,
    )
    return DecodingResult(_strip_end(tokens), scores, None if source_mask is None else attention)


class _Beams(NamedTuple):
    """Loop variables of `beam_search`.

    Attributes:
        index: int scalar, of the step.
        token: `(batch * num_beams,)`, the last one of each hypothesis.
        state: of the decoder, for `batch * num_beams` rows.
        tokens: `(batch, num_beams, max_length)`.
        scores: `(batch, num_beams)`, log-probabilities.
        finished: bool `(batch, num_beams)`.
        coverage: `(batch * num_beams, source)`, the sum of attention weights so far; () without
            attention.
        attention: `(batch * num_beams, max_length, source)`; () if it is not collected.
    """

    index: Any
    token: Any
    state: Any
    tokens: Any
    scores: Any
    finished: Any
    coverage: Any
    attention: Any


def beam_search(
    step: StepFunction,
    state: Any,
    batch_size: Any,
    max_length: int,
    num_beams: int,
    *,
    length_penalty: float = 0.0,
    coverage_penalty: float = 0.0,
    source_mask: Any = None,
    attention: bool = False,
) -> DecodingResult:
    """Decodes the `num_beams` most probable sequences of each row that a beam search finds.

    Each step keeps the `num_beams` most probable hypotheses of a row. The result is exact where
    they include all sequences of at most `max_length` tokens. The best one comes first.

    Args:
        step: `StepFunction` of the decoder, for `batch_size * num_beams` rows; the beams of one row
            are adjacent.
        state: state before the first token, for as many rows.
        batch_size: int, or an int tensor.
        max_length: int, tokens at most, the end token included.
        num_beams: int, hypotheses per row.
        length_penalty: float, alpha in Wu et al.; 0 ranks by log-probability, which favors short
            sequences.
        coverage_penalty: float, beta in Wu et al.; above 0, hypotheses lose score for source steps
            that received little attention.
        source_mask: bool `(batch_size * num_beams, source)`; None without attention.
        attention: bool, whether to collect attention weights.
    """
    positions = ops.arange(max_length, dtype="int32")
    first_beam = ops.arange(batch_size, dtype="int32")[:, None] * num_beams

    def body(*loop_variables):
        beams = _Beams(*loop_variables)
        log_probs, next_state, weights = step(beams.token, beams.state)
        scores, beam, token = _best_continuations(beams, log_probs, batch_size, num_beams)
        parents = ops.reshape(first_beam + beam, (-1,))

        def continued(x):
            return ops.take(x, parents, axis=0)

        state = tree.map_structure(
            lambda new, old: _with_shape_of(continued(new), old), next_state, beams.state
        )
        at_index = positions == beams.index
        was_finished = ops.take_along_axis(beams.finished, beam, axis=1)
        tokens = ops.take_along_axis(beams.tokens, beam[..., None], axis=1)
        tokens = ops.where(at_index, token[..., None], tokens)
        coverage, collected = beams.coverage, beams.attention
        if source_mask is not None:
            weights = ops.where(ops.reshape(was_finished, (-1, 1)), 0.0, continued(weights))
            coverage = continued(coverage) + weights
            if attention:
                collected = ops.where(
                    at_index[None, :, None], weights[:, None], continued(collected)
                )
        finished = ops.logical_or(was_finished, token == END)
        token = ops.reshape(token, (-1,))
        return _Beams(beams.index + 1, token, state, tokens, scores, finished, coverage, collected)

    def any_unfinished(*loop_variables):
        beams = _Beams(*loop_variables)
        return ops.logical_and(beams.index < max_length, ops.logical_not(ops.all(beams.finished)))

    rows, source_length = batch_size * num_beams, 0
    if source_mask is not None:
        source_length = ops.shape(source_mask)[-1]
    # All beams of a row begin alike: only the first may be continued in the first step.
    scores = ops.cast(ops.where(ops.arange(num_beams) == 0, 0.0, NEG_INF), "float32")
    start = _Beams(
        index=ops.convert_to_tensor(0, "int32"),
        token=ops.full((rows,), START, dtype="int32"),
        state=state,
        tokens=ops.full((batch_size, num_beams, max_length), PADDING, dtype="int32"),
        scores=ops.broadcast_to(scores[None], (batch_size, num_beams)),
        finished=ops.zeros((batch_size, num_beams), dtype="bool"),
        coverage=() if source_mask is None else ops.zeros((rows, source_length), "float32"),
        attention=ops.zeros((rows, max_length, source_length), "float32") if attention else (),
    )
    beams = _Beams(*ops.while_loop(any_unfinished, body, start, maximum_iterations=max_length))
    ranks = _ranks(beams, length_penalty, coverage_penalty, source_mask)
    return _ranked(beams, ranks, collected=attention)


def _best_continuations(beams: _Beams, log_probs, batch_size, num_beams: int):
    """The most probable continuations of all hypotheses of each row.

    Returns:
        Scores, indices of the continued beams, and new tokens, each `(batch, num_beams)`.
    """
    vocabulary_size = log_probs.shape[-1]
    log_probs = ops.reshape(log_probs, (batch_size, num_beams, vocabulary_size))
    only_padding = ops.where(ops.arange(vocabulary_size) == PADDING, 0.0, NEG_INF)
    log_probs = ops.where(beams.finished[..., None], only_padding, _mask_special_tokens(log_probs))
    totals = beams.scores[..., None] + log_probs
    totals = ops.reshape(totals, (batch_size, num_beams * vocabulary_size))
    scores, best = ops.top_k(totals, num_beams)
    best = ops.cast(best, "int32")
    return scores, best // vocabulary_size, best % vocabulary_size


def _ranks(beams: _Beams, length_penalty: float, coverage_penalty: float, source_mask):
    """Scores with the penalties of Wu et al., equation 14, `(batch, num_beams)`."""
    scores = beams.scores
    lengths = ops.sum(ops.cast(beams.tokens != PADDING, "int32"), axis=-1)
    ranks = scores / ((5.0 + ops.cast(lengths, scores.dtype)) / 6.0) ** length_penalty
    if coverage_penalty:
        log_coverage = ops.log(ops.clip(beams.coverage, 1e-9, 1.0))
        log_coverage = ops.sum(ops.where(source_mask, log_coverage, 0.0), axis=-1)
        ranks = ranks + coverage_penalty * ops.reshape(log_coverage, ops.shape(scores))
    return ranks


def _ranked(beams: _Beams, ranks, *, collected: bool) -> DecodingResult:
    """Hypotheses by descending rank; beams without one are padding with a score of -inf."""
    order = ops.argsort(-ranks, axis=-1)
    tokens = ops.take_along_axis(beams.tokens, order[..., None], axis=1)
    scores = ops.take_along_axis(beams.scores, order, axis=1)
    # There may be fewer sequences of at most `max_length` tokens than beams.
    exists = scores > NEG_INF / 2
    tokens = ops.where(exists[..., None], tokens, PADDING)
    scores = ops.where(exists, scores, -float("inf"))
    attention = None
    if collected:
        attention = ops.reshape(beams.attention, (*ops.shape(tokens), -1))
        attention = ops.take_along_axis(attention, order[..., None, None], axis=1)
        attention = ops.where(exists[..., None, None], attention, 0.0)
    return DecodingResult(_strip_end(tokens), scores, attention)


def autoregressive_rollout(
    step: StepFunction, state: Any, first: Any, num_steps: int, source_mask: Any = None
) -> DecodingResult:
    """Decodes `num_steps` readings per row, each from the one before.

    Args:
        step: `StepFunction` from the last reading `(batch, features)` to the next one.
        state: state before the first reading.
        first: `(batch, features)`, input of the first step.
        num_steps: int.
        source_mask: bool `(batch, source)`, to collect attention weights; or None.
    """
    positions = ops.arange(num_steps, dtype="int32")[None, :, None]

    def body(index, reading, state, readings, attention):
        prediction, next_state, weights = step(reading, state)
        reading = _with_shape_of(prediction, reading)
        state = tree.map_structure(_with_shape_of, next_state, state)
        readings = ops.where(positions == index, reading[:, None], readings)
        if source_mask is not None:
            attention = ops.where(positions == index, weights[:, None], attention)
        return index + 1, reading, state, readings, attention

    batch_size, features = ops.shape(first)
    attention = ()
    if source_mask is not None:
        attention = ops.zeros((batch_size, num_steps, ops.shape(source_mask)[-1]), "float32")
    readings = ops.zeros((batch_size, num_steps, features), first.dtype)
    *_, readings, attention = ops.while_loop(
        lambda index, *_: index < num_steps,
        body,
        (ops.convert_to_tensor(0, "int32"), first, state, readings, attention),
        maximum_iterations=num_steps,
    )
    return DecodingResult(readings, None, None if source_mask is None else attention)


def argmax_sampler(log_probs, index):
    """Chooses the most probable token; a `Sampler`."""
    return argmax(log_probs)


def categorical_sampler(
    noise: Any, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> Sampler:
    """Makes a `Sampler` that draws tokens from their distribution, by the Gumbel-max trick.

    Args:
        noise: `(batch, max_length, vocabulary)`, drawn from a standard Gumbel distribution.
        temperature: float above 0; below 1 makes probable tokens more frequent.
        top_k: int, draws only from the `top_k` most probable tokens; None for all.
        top_p: float in (0, 1], draws only from the most probable tokens with this total
            probability; None for all.
    """

    def sample(log_probs, index):
        logits = log_probs / temperature
        if top_k is not None:
            kth_largest = ops.top_k(logits, min(top_k, logits.shape[-1]))[0][:, -1:]
            logits = ops.where(logits < kth_largest, NEG_INF, logits)
        if top_p is not None:
            descending = ops.flip(ops.sort(logits, axis=-1), axis=-1)
            cumulative = ops.cumsum(ops.softmax(descending, axis=-1), axis=-1)
            before = cumulative - ops.softmax(descending, -1)
            nucleus = ops.where(before < top_p, descending, -NEG_INF)
            logits = ops.where(logits < ops.min(nucleus, axis=-1, keepdims=True), NEG_INF, logits)
        return argmax(logits + ops.take(noise, index, axis=1))

    return sample


def _with_shape_of(x, reference):
    """`x` with the static shape of `reference`, which some operations lose."""
    return ops.reshape(x, ops.shape(reference))


def _mask_special_tokens(log_probs):
    """Log-probabilities with NEG_INF for the tokens that no output contains."""
    token = ops.arange(log_probs.shape[-1])
    special = ops.logical_or(token == PADDING, token == START)
    return ops.where(special, NEG_INF, log_probs)


def _strip_end(tokens):
    return ops.where(tokens == END, PADDING, tokens)
