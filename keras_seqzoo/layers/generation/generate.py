"""`generate`: what is said of a source when nothing else is given."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops, tree

from keras_seqzoo.errors import ArgumentError
from keras_seqzoo.layers.generation import samplers
from keras_seqzoo.utils.argument_validation import (
    argument_message,
    check_bool,
    check_choice,
    check_not_negative,
    check_positive,
    check_seed,
    is_real,
)

STRATEGIES = ("greedy", "beam", "sample")


class Generated(NamedTuple):
    """What `generate` says.

    Attributes:
        sequences: tokens, int array `(batch, max_length)` or `(batch, num_return, max_length)`, 0
            after the end, which is not among them; or readings `(batch, max_length, features)`.
        scores: `(batch,)` or `(batch, num_return)`, the log-probability of each answer, that of its
            end among them; None of readings.
        attention: `(batch, [num_return,] max_length, source)`, how much each token looked at each
            step of the source; None unless asked for.
    """

    sequences: np.ndarray
    scores: np.ndarray | None = None
    attention: np.ndarray | None = None


class GenerationMixin:
    """What decodes: it can `encode` a source and `step` from token to token, or reading to reading.

    Attributes:
        generates_tokens: bool, or readings.
        width: int, how many tokens it knows, or features of a reading.
        value_dtype: str, of readings.
        looks: bool, whether it has attention.
    """

    generates_tokens: bool
    width: int
    value_dtype: str
    looks: bool

    def encode(self, source):
        """What decoding starts from: what is looked at, and the first state."""
        raise NotImplementedError

    def step(self, before, state, source):
        """What comes next, the state after, and the weights of attention or None.

        What is looked at may be of fewer rows: each is that of as many rows, one after another.
        """
        raise NotImplementedError

    def stepping(self, looked_at, rows: Any) -> samplers.Step:
        """`step` for a loop over so many sources, from what came before and the state."""
        return lambda before, state: self.step(before, state, looked_at)

    def real_steps(self, looked_at):
        """Which steps of the source are real, `(batch, source)`, or None for all."""
        raise NotImplementedError

    def checked_source(self, source) -> tuple[np.ndarray, int]:
        """A source as it can be encoded, and how many steps it has."""
        raise NotImplementedError

    def generate(
        self,
        source: Any,
        *,
        max_length: int = 50,
        strategy: str = "greedy",
        num_beams: int = 5,
        length_penalty: float = 0.0,
        coverage_penalty: float = 0.0,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        num_return: int | None = None,
        return_attention: bool = False,
        seed: int = 0,
        batch_size: int = 64,
    ) -> Generated:
        """Says a target for each source: tokens until the end, or `max_length` readings.

        Args:
            source: array as the model takes it, `(batch, source)` tokens or
                `(batch, source, features)` readings.
            max_length: int, at least 1, tokens at most.
            strategy: of tokens. "greedy", the most probable token each time; "beam", the most
                probable answer that a beam finds; "sample", tokens drawn as often as they are
                probable.
            num_beams: int, at least 1, beginnings that a beam follows.
            length_penalty: float, at least 0, of "beam": log-probabilities are divided by
                `((5 + length) / 6) ** length_penalty` before answers are ranked.
            coverage_penalty: float, at least 0, of "beam" with attention: answers that leave steps
                of the source out lose `coverage_penalty * sum(log(min(attention, 1)))`.
            temperature: float above 0, of "sample".
            top_k: int, at least 1, of "sample": only so many most probable tokens; None for all.
            top_p: float in (0, 1], of "sample": only the most probable tokens that together have
                this probability; None for all.
            num_return: int, at most `num_beams`, the best answers of a beam; None for one, without
                an axis of their own. Where fewer can be said within `max_length`, as a beam may be
                wider than the vocabulary, the rest are empty, with scores of -inf.
            return_attention: bool, whether to give the weights of attention.
            seed: int, at least 0, of "sample".
            batch_size: int, at least 1, rows at once.

        Returns:
            A `Generated`.

        Raises:
            ArgumentError: if an option is out of range, or the model has no attention to return.
            DataError: if there is no source, or one without steps.
        """
        check_positive(max_length=max_length, num_beams=num_beams, batch_size=batch_size)
        check_choice("strategy", strategy, STRATEGIES)
        check_bool(return_attention=return_attention)
        check_seed(seed)
        check_not_negative(length_penalty=length_penalty, coverage_penalty=coverage_penalty)
        if not is_real(temperature) or temperature <= 0:
            raise ArgumentError(argument_message("temperature", "a number above 0", temperature))
        if top_p is not None and (not is_real(top_p) or not 0 < top_p <= 1):
            raise ArgumentError(argument_message("top_p", "a number in (0, 1], or None", top_p))
        if top_k is not None:
            check_positive(top_k=top_k)
        if num_return is not None:
            check_positive(num_return=num_return)
            if strategy != "beam" or num_return > num_beams:
                expected = "at most `num_beams`, with strategy='beam'"
                raise ArgumentError(argument_message("num_return", expected, num_return))
        if not self.generates_tokens and strategy != "greedy":
            raise ArgumentError(
                argument_message("strategy", "'greedy' where readings are said", strategy)
            )
        if (return_attention or coverage_penalty) and not self.looks:
            name = "return_attention" if return_attention else "coverage_penalty"
            raise ArgumentError(f"`{name}` must be left out of a model without attention.")
        source, steps = self.checked_source(source)
        options = {"max_length": max_length, "attention": return_attention}
        if strategy == "beam":
            options |= {
                "width": num_beams,
                "length_penalty": float(length_penalty),
                "coverage_penalty": float(coverage_penalty),
            }
        elif strategy == "sample":
            options |= {"temperature": float(temperature), "top_k": top_k, "top_p": top_p}
        say = self._loop(strategy, options)
        parts, rng = [], np.random.default_rng(seed)
        for start in range(0, len(source), batch_size):
            given = [source[start : start + batch_size]]
            if strategy == "sample":
                size = (len(given[0]), max_length, self.width)
                given.append(rng.gumbel(size=size).astype(np.float32))
            said = say(*map(ops.convert_to_tensor, given))
            parts.append([None if one is None else ops.convert_to_numpy(one) for one in said])
        found = [
            np.concatenate([part[at] for part in parts]) if parts[0][at] is not None else None
            for at in range(3)
        ]
        if found[2] is not None:
            found[2] = found[2][..., :steps]
        if strategy == "beam":
            kept = slice(num_return) if num_return is not None else 0
            found = [None if one is None else one[:, kept] for one in found]
        return Generated(*found)

    def say(
        self,
        source,
        *,
        max_length: Any,
        strategy: str = "greedy",
        attention: bool = False,
        noise: Any = None,
        **options: Any,
    ) -> samplers.DecodingResult:
        """What `generate` does, on tensors, as it goes into a graph; nothing is checked.

        Args:
            source: tensor, as the model takes it.
            max_length: int, or an int tensor where nothing is compiled by XLA.
            strategy: "greedy", "beam" or "sample".
            attention: bool, whether to collect its weights.
            noise: of "sample", as of `decoding.drawn`.
            **options: those of `decoding.beam_search` or `decoding.drawn`.

        Returns:
            A `decoding.DecodingResult`; of a beam with all its answers.
        """
        looked_at, state = self.encode(source)
        rows, steps = ops.shape(source)[:2]
        real = None
        if attention or options.get("coverage_penalty"):
            real = self.real_steps(looked_at)
            if real is None:
                real = ops.ones((rows, steps), "bool")
        if strategy == "beam":
            repeat = functools.partial(ops.repeat, repeats=options["width"], axis=0)
            state = tree.map_structure(repeat, state)
            real = None if real is None else repeat(real)
            options |= {"attention": attention}
        step = self.stepping(looked_at, rows)
        if not self.generates_tokens:
            first = ops.zeros((rows, self.width), self.value_dtype)
            return samplers.autoregressive_rollout(step, state, first, max_length, real)
        if strategy == "beam":
            return samplers.beam_search(step, state, rows, max_length, real=real, **options)
        choose = (
            samplers.argmax_sampler if strategy == "greedy" else samplers.drawn(noise, **options)
        )
        return samplers.greedy_search(step, state, rows, max_length, choose, real)

    @functools.cached_property
    def _loops(self) -> dict[tuple, Any]:
        """The loops that were compiled, by strategy and options."""
        return {}

    def _loop(self, strategy: str, options: dict[str, Any]):
        kind = (strategy, *sorted(options.items()))
        if kind not in self._loops:
            self._loops[kind] = self._make_loop(strategy, dict(options))
        return self._loops[kind]

    def _make_loop(self, strategy: str, options: dict[str, Any]):
        """The loop of a strategy, compiled where that can be."""

        def say(source, noise=None):
            return tuple(self.say(source, strategy=strategy, noise=noise, **options))

        if keras.backend.backend() != "tensorflow":
            return say
        import tensorflow as tf

        return tf.function(say, jit_compile=True, autograph=False)
