"""`generate`: sequences decoded from a source alone, by greedy search, beam search or sampling."""

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


class GenerationOutput(NamedTuple):
    """Result of `generate`.

    Attributes:
        sequences: tokens, int array `(batch, max_length)` or
            `(batch, num_return_sequences, max_length)`, with 0 from the end token on; or readings
            `(batch, max_length, features)`.
        scores: `(batch,)` or `(batch, num_return_sequences)`, the log-probability of each sequence
            with its end token; None for readings.
        attention: `(batch, [num_return_sequences,] max_length, source)`, the attention weights of
            each token over the source; None unless requested.
    """

    sequences: np.ndarray
    scores: np.ndarray | None = None
    attention: np.ndarray | None = None


class GenerationMixin:
    """Adds `generate` to a decoder that can `encode` a source and `step` through a target.

    Attributes:
        generates_tokens: bool, whether the target is tokens; otherwise it is readings.
        output_dim: int, size of the target vocabulary, or features of a reading.
        readings_dtype: str, dtype of target readings.
        has_attention: bool, whether the decoder attends to the source.
    """

    generates_tokens: bool
    output_dim: int
    readings_dtype: str
    has_attention: bool

    def encode(self, source: Any) -> tuple[Any, Any]:
        """Encodes a source: what the decoder attends to, and its first state."""
        raise NotImplementedError

    def step(self, inputs: Any, state: Any, memory: Any) -> tuple[Any, Any, Any]:
        """Runs the decoder for one step.

        Args:
            inputs: the last tokens `(rows,)`, or readings `(rows, features)`.
            state: as `encode` returns it.
            memory: as `encode` returns it. It may have fewer rows than `inputs`: each is shared by
                as many adjacent rows.

        Returns:
            Log-probabilities or readings, the next state, and attention weights or None.
        """
        raise NotImplementedError

    def make_step(self, memory: Any, batch_size: Any) -> samplers.StepFunction:
        """Makes the `StepFunction` of a decoding loop over `batch_size` sources."""
        return lambda inputs, state: self.step(inputs, state, memory)

    def source_mask(self, memory: Any) -> Any:
        """The mask of the source, bool `(batch, source)`, or None if all steps are real."""
        raise NotImplementedError

    def prepare_source(self, source: Any) -> tuple[np.ndarray, int]:
        """Validates a source; returns it as `encode` takes it, and its number of steps."""
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
        num_return_sequences: int | None = None,
        return_attention: bool = False,
        seed: int = 0,
        batch_size: int = 64,
    ) -> GenerationOutput:
        """Generates a target for each source: tokens until the end, or `max_length` readings.

        Args:
            source: array as the model takes it, `(batch, source)` tokens or
                `(batch, source, features)` readings.
            max_length: int, at least 1, maximum number of tokens, or number of readings.
            strategy: for tokens: "greedy", the most probable token at each step; "beam", beam
                search; "sample", tokens drawn from their distribution.
            num_beams: int, at least 1, hypotheses per row of "beam".
            length_penalty: float, at least 0, for "beam": hypotheses are ranked by their
                log-probability divided by `((5 + length) / 6) ** length_penalty`.
            coverage_penalty: float, at least 0, for "beam" with attention: adds
                `coverage_penalty * sum(log(min(attention, 1)))` to the rank, where `attention` is
                what each source step received in total.
            temperature: float above 0, for "sample".
            top_k: int, at least 1, for "sample": draws only from the `top_k` most probable tokens;
                None for all.
            top_p: float in (0, 1], for "sample": draws only from the most probable tokens with
                this total probability; None for all.
            num_return_sequences: int, at most `num_beams`, hypotheses to return for "beam"; None
                for the best one, without an axis of its own. If fewer sequences of `max_length`
                tokens exist, the rest are empty, with scores of -inf.
            return_attention: bool, whether to return attention weights.
            seed: int, at least 0, for "sample".
            batch_size: int, at least 1, rows decoded at once.

        Returns:
            A `GenerationOutput`.

        Raises:
            ArgumentError: if an option is out of range, or the model has no attention to return.
            DataError: if there is no source, or one without steps.
        """
        check_positive(max_length=max_length, num_beams=num_beams, batch_size=batch_size)
        check_choice("strategy", strategy, STRATEGIES)
        check_bool(return_attention=return_attention)
        check_seed(seed)
        check_not_negative(length_penalty=length_penalty, coverage_penalty=coverage_penalty)
        _check_sampling(temperature, top_k, top_p)
        if num_return_sequences is not None:
            check_positive(num_return_sequences=num_return_sequences)
            if strategy != "beam" or num_return_sequences > num_beams:
                expected = "at most `num_beams`, with strategy='beam'"
                raise ArgumentError(
                    argument_message("num_return_sequences", expected, num_return_sequences)
                )
        if not self.generates_tokens and strategy != "greedy":
            expected = "'greedy' for a model that generates readings"
            raise ArgumentError(argument_message("strategy", expected, strategy))
        if (return_attention or coverage_penalty) and not self.has_attention:
            name = "return_attention" if return_attention else "coverage_penalty"
            raise ArgumentError(f"`{name}` must be left out of a model without attention.")
        source, num_steps = self.prepare_source(source)
        options = {"max_length": max_length, "attention": return_attention}
        if strategy == "beam":
            options |= {
                "num_beams": num_beams,
                "length_penalty": float(length_penalty),
                "coverage_penalty": float(coverage_penalty),
            }
        elif strategy == "sample":
            options |= {"temperature": float(temperature), "top_k": top_k, "top_p": top_p}
        result = self._decode_batches(source, strategy, options, seed, batch_size)
        sequences, scores, attention = result
        if attention is not None:
            attention = attention[..., :num_steps]  # without the padding of `prepare_source`
        if strategy == "beam":
            best = 0 if num_return_sequences is None else slice(num_return_sequences)
            sequences, scores = sequences[:, best], scores[:, best]
            attention = None if attention is None else attention[:, best]
        return GenerationOutput(sequences, scores, attention)

    def decode(
        self,
        source: Any,
        *,
        max_length: Any,
        strategy: str = "greedy",
        attention: bool = False,
        noise: Any = None,
        **options: Any,
    ) -> samplers.DecodingResult:
        """Does what `generate` does, on tensors and inside a graph. Arguments are not checked.

        Args:
            source: tensor, as the model takes it.
            max_length: int, or an int tensor if the graph is not compiled by XLA.
            strategy: "greedy", "beam" or "sample".
            attention: bool, whether to collect attention weights.
            noise: for "sample", as of `samplers.categorical_sampler`.
            **options: those of `samplers.beam_search` or `samplers.categorical_sampler`.

        Returns:
            A `samplers.DecodingResult`; with strategy "beam", all beams.
        """
        memory, state = self.encode(source)
        batch_size, num_steps = ops.shape(source)[:2]
        source_mask = None
        if attention or options.get("coverage_penalty"):
            source_mask = self.source_mask(memory)
            if source_mask is None:
                source_mask = ops.ones((batch_size, num_steps), "bool")
        if strategy == "beam":
            repeat = functools.partial(ops.repeat, repeats=options["num_beams"], axis=0)
            state = tree.map_structure(repeat, state)
            source_mask = None if source_mask is None else repeat(source_mask)
            options |= {"attention": attention}
        step = self.make_step(memory, batch_size)
        if not self.generates_tokens:
            first = ops.zeros((batch_size, self.output_dim), self.readings_dtype)
            return samplers.autoregressive_rollout(step, state, first, max_length, source_mask)
        if strategy == "beam":
            return samplers.beam_search(
                step, state, batch_size, max_length, source_mask=source_mask, **options
            )
        sampler = samplers.argmax_sampler
        if strategy == "sample":
            sampler = samplers.categorical_sampler(noise, **options)
        return samplers.greedy_search(step, state, batch_size, max_length, sampler, source_mask)

    def _decode_batches(
        self, source: np.ndarray, strategy: str, options: dict[str, Any], seed: int, batch_size: int
    ) -> list[Any]:
        """Sequences, scores and attention of all rows, as arrays or None."""
        decode = self._compiled_decode(strategy, options)
        results, rng = [], np.random.default_rng(seed)
        for start in range(0, len(source), batch_size):
            inputs = [source[start : start + batch_size]]
            if strategy == "sample":
                shape = (len(inputs[0]), options["max_length"], self.output_dim)
                inputs.append(rng.gumbel(size=shape).astype(np.float32))
            result = decode(*map(ops.convert_to_tensor, inputs))
            results.append([None if x is None else ops.convert_to_numpy(x) for x in result])
        return [
            None if arrays[0] is None else np.concatenate(arrays)
            for arrays in zip(*results, strict=True)
        ]

    @functools.cached_property
    def _compiled_decodes(self) -> dict[tuple, Any]:
        """Functions that were compiled, by strategy and options."""
        return {}

    def _compiled_decode(self, strategy: str, options: dict[str, Any]):
        key = (strategy, *sorted(options.items()))
        if key not in self._compiled_decodes:
            self._compiled_decodes[key] = self._compile_decode(strategy, dict(options))
        return self._compiled_decodes[key]

    def _compile_decode(self, strategy: str, options: dict[str, Any]):
        """`decode` with these options, compiled by XLA where the backend is TensorFlow."""

        def decode(source, noise=None):
            return tuple(self.decode(source, strategy=strategy, noise=noise, **options))

        if keras.backend.backend() != "tensorflow":
            return decode
        import tensorflow as tf

        return tf.function(decode, jit_compile=True, autograph=False)


def _check_sampling(temperature: Any, top_k: Any, top_p: Any) -> None:
    if not is_real(temperature) or temperature <= 0:
        raise ArgumentError(argument_message("temperature", "a number above 0", temperature))
    if top_p is not None and (not is_real(top_p) or not 0 < top_p <= 1):
        raise ArgumentError(argument_message("top_p", "a number in (0, 1], or None", top_p))
    if top_k is not None:
        check_positive(top_k=top_k)
