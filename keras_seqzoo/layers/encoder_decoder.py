"""The model that says a sequence of another length: `generate`, beside Keras's own verbs."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops, tree

from keras_seqzoo.arrays import as_array
from keras_seqzoo.errors import (
    ArgumentError,
    DataError,
    check_bool,
    check_choice,
    check_positive,
    check_seed,
    is_real,
    sentence,
)
from keras_seqzoo.layers import decoding
from keras_seqzoo.layers.masking import PACKAGE
from keras_seqzoo.layers.sampling import ScheduledSampling

STRATEGIES = ("greedy", "beam", "sample")
_TOKENS_PER_ROW = 16  # about the length of an answer
_MULTIPLE = 8  # sources are padded to multiples of it: a loop is compiled once for each length


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


@keras.saving.register_keras_serializable(package=PACKAGE)
class EncoderDecoderModel(keras.Model):
    """A Functional model from a source and a target so far to what comes next, which decodes too.

    `fit` and `predict` are Keras's: the target is given. `generate` gives the source alone, and
    feeds the model with what it says, in one loop that is compiled. Saved and loaded it does so
    still, since all it needs is found in the graph: a layer "decoder", and, where tokens are said,
    a layer "probabilities", a softmax. Where there is a layer `ScheduledSampling`, training takes
    some steps of the target from what the model says.

    Args:
        *args: inputs `[source, target]` and outputs, as of `keras.Model`.
        **kwargs: as of `keras.Model`.
    """

    def call(self, inputs, training=None, mask=None):
        sampling = self._sampling
        if training and sampling is not None:
            source, target = self._standardize_inputs(inputs)
            said = super().call([source, target], training=training, mask=mask)
            inputs = [source, sampling.mixed(target, said)]
        return super().call(inputs, training=training, mask=mask)

    def generate(
        self,
        source: Any,
        *,
        max_length: int = 50,
        strategy: str = "greedy",
        beam_width: int = 5,
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
            beam_width: int, at least 1, beginnings that a beam follows.
            length_penalty: float, at least 0, of "beam": log-probabilities are divided by
                `((5 + length) / 6) ** length_penalty` before answers are ranked.
            coverage_penalty: float, at least 0, of "beam" with attention: answers that leave steps
                of the source out lose `coverage_penalty * sum(log(min(attention, 1)))`.
            temperature: float above 0, of "sample".
            top_k: int, at least 1, of "sample": only so many most probable tokens; None for all.
            top_p: float in (0, 1], of "sample": only the most probable tokens that together have
                this probability; None for all.
            num_return: int, at most `beam_width`, the best answers of a beam; None for one, without
                an axis of their own.
            return_attention: bool, whether to give the weights of attention.
            seed: int, at least 0, of "sample".
            batch_size: int, at least 1, rows at once.

        Returns:
            A `Generated`.

        Raises:
            ArgumentError: if an option is out of range, or the model has no attention to return.
            DataError: if there is no source, or one without steps.
        """
        check_positive(max_length=max_length, beam_width=beam_width, batch_size=batch_size)
        check_choice("strategy", strategy, STRATEGIES)
        check_bool(return_attention=return_attention)
        check_seed(seed)
        for name, value in (
            ("length_penalty", length_penalty),
            ("coverage_penalty", coverage_penalty),
        ):
            if not is_real(value) or value < 0:
                raise ArgumentError(sentence(name, "a number of at least 0", value))
        if not is_real(temperature) or temperature <= 0:
            raise ArgumentError(sentence("temperature", "a number above 0", temperature))
        if top_p is not None and (not is_real(top_p) or not 0 < top_p <= 1):
            raise ArgumentError(sentence("top_p", "a number in (0, 1], or None", top_p))
        if top_k is not None:
            check_positive(top_k=top_k)
        if num_return is not None:
            check_positive(num_return=num_return)
            if strategy != "beam" or num_return > beam_width:
                expected = "at most `beam_width`, with strategy='beam'"
                raise ArgumentError(sentence("num_return", expected, num_return))
        if not self.says_tokens and strategy != "greedy":
            raise ArgumentError(sentence("strategy", "'greedy' where readings are said", strategy))
        looks = self.get_layer("decoder").attention is not None
        if (return_attention or coverage_penalty) and not looks:
            name = "return_attention" if return_attention else "coverage_penalty"
            raise ArgumentError(f"`{name}` must be left out of a model without attention.")
        source, steps = self._checked_source(source)
        options = {"max_length": max_length, "attention": return_attention}
        if strategy == "beam":
            options |= {
                "width": beam_width,
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
                size = (len(given[0]), max_length, self.output_shape[-1])
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

    def attention(self, source: Any, target: Any) -> np.ndarray:
        """How much each step of a target looks at each step of its source.

        Args:
            source: one source as the model takes it, `(source,)` tokens or `(source, features)`.
            target: what is said of it, `(target,)` tokens without START and END, or
                `(target, features)`.

        Returns:
            `(steps, source)`, a row per reading, or per token and one for the end after them; each
            sums to 1.

        Raises:
            ArgumentError: if the model has no attention.
            DataError: if the source has no step, or another rank than it must.
        """
        if self.get_layer("decoder").attention is None:
            raise ArgumentError("`attention` must not be asked of a model without it.")
        source, steps = self._checked_source(as_array("source", source)[None])
        target = as_array("target", target)
        if self.says_tokens:
            so_far = np.array([decoding.START, *target], np.int32)
        else:
            so_far = np.concatenate([np.zeros_like(target[:1]), target[:-1]]).astype(np.float32)
        looked_at, state = self.encode(ops.convert_to_tensor(source))
        rows = []
        for before in so_far:
            _, state, weights = self.step(ops.convert_to_tensor(before[None]), state, looked_at)
            rows.append(ops.convert_to_numpy(weights)[0, :steps])
        return np.stack(rows)

    def plot_attention(
        self, source: Any, target: Any, *, source_names=None, target_names=None, ax=None
    ):
        """Draws `attention`, the source from left to right, the target downwards; returns the axes.

        Args:
            source: as of `attention`.
            target: as of `attention`.
            source_names: list of str, names for the steps of the source.
            target_names: list of str, names for the steps of the target, without its end.
            ax: matplotlib axes; default those of a new figure.
        """
        weights = self.attention(source, target)
        if ax is None:
            from matplotlib.figure import Figure

            size = [min(2 + 0.3 * steps, 12) for steps in weights.shape[::-1]]
            ax = Figure(figsize=size, layout="constrained").add_subplot()
        ax.imshow(weights, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        if source_names is not None:
            ax.set_xticks(range(len(source_names)), source_names)
        if target_names is not None:
            ends = ["end"] * (len(weights) - len(target_names))
            ax.set_yticks(range(len(weights)), [*target_names, *ends])
        ax.set_xlabel("source")
        ax.set_ylabel("target")
        return ax

    def say(
        self,
        source,
        *,
        max_length: Any,
        strategy: str = "greedy",
        attention: bool = False,
        noise: Any = None,
        **options: Any,
    ) -> decoding.Said:
        """What `generate` does, on tensors, as it goes into a graph; nothing is checked.

        Args:
            source: tensor, as the model takes it.
            max_length: int, or an int tensor where nothing is compiled by XLA.
            strategy: "greedy", "beam" or "sample".
            attention: bool, whether to collect its weights.
            noise: of "sample", as of `decoding.drawn`.
            **options: those of `decoding.say_best` or `decoding.drawn`.

        Returns:
            A `decoding.Said`; of a beam with all its answers.
        """
        looked_at, state = self.encode(source)
        rows, steps = ops.shape(source)[:2]
        real = None
        if looked_at.keys is not None and (attention or options.get("coverage_penalty")):
            real = looked_at.mask
            if real is None:
                real = ops.ones((rows, steps), "bool")
        if strategy == "beam":
            repeat = functools.partial(ops.repeat, repeats=options["width"], axis=0)
            state = tree.map_structure(repeat, state)
            real = None if real is None else repeat(real)
            options |= {"attention": attention}
        step = functools.partial(self._step_of, looked_at, None)
        if not self.says_tokens:
            first = ops.zeros((rows, self.output_shape[-1]), self.inputs[1].dtype)
            return decoding.say_values(step, state, first, max_length, real)
        step = functools.partial(self._step_of, looked_at, self._table(rows))
        if strategy == "beam":
            return decoding.say_best(step, state, rows, max_length, real=real, **options)
        choose = decoding.likeliest if strategy == "greedy" else decoding.drawn(noise, **options)
        return decoding.say_one(step, state, rows, max_length, choose, real)

    def encode(self, source):
        """What decoding starts from: the memory and its mask, and the decoder's first state."""
        memory, mask, *initial = self._encoder(source)
        decoder = self.get_layer("decoder")
        return decoder.source(memory, mask), decoder.begin(initial)

    def step(self, before, state, source):
        """What comes next: log-probabilities of tokens, or a reading.

        Args:
            before: the last token, int `(batch,)`, or reading, `(batch, features)`.
            state: the decoder's.
            source: of `encode`.

        Returns:
            That, the state after, and the weights of attention, or None without.
        """
        return self._step_of(source, None, before, state)

    def _step_of(self, source, table, before, state):
        """`step`; what is fed is looked up where there is a table of it."""
        fed = self._fed(before) if table is None else ops.take(table, before, axis=0)
        output, state, weights = self.get_layer("decoder").step_of(fed, state, source)
        said = self._head(output[:, None])[:, 0]
        weights = None if weights is None else ops.cast(weights, "float32")
        if not self.says_tokens:
            return ops.cast(said, before.dtype), state, weights
        return ops.log_softmax(ops.cast(said, "float32"), axis=-1), state, weights

    @property
    def says_tokens(self) -> bool:
        """Whether it says tokens; if not, it says readings."""
        return len(self.inputs[1].shape) == 2

    def _checked_source(self, source) -> tuple[np.ndarray, int]:
        """It, padded, and how many steps it has."""
        source = as_array("source", source)
        rank = len(self.inputs[0].shape)
        if source.ndim != rank or 0 in source.shape:
            raise DataError(
                f"`source` must have at least one row of at least one step, {rank} axes in all. "
                f"Received: shape {source.shape}."
            )
        steps = source.shape[1]
        if rank == 3:
            return source.astype(self.inputs[0].dtype), steps
        known = self.get_layer("embedding").input_dim
        if source.dtype.kind not in "iu" or source.min() < 0 or source.max() >= known:
            raise DataError(
                f"`source` must be numbers of tokens from 0 to {known - 1}. Received: dtype "
                f"{source.dtype}, from {source.min()} to {source.max()}. Unknown tokens are 1."
            )
        padded = np.zeros((len(source), steps + -steps % _MULTIPLE), self.inputs[0].dtype)
        padded[:, :steps] = source
        return padded, steps

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

    def _fed(self, before):
        return self.get_layer("decoder").feed(self._feed(before[:, None])[:, 0])

    def _table(self, rows):
        """What each token is fed as; None where that may be more than a loop over rows feeds."""
        tokens = self.output_shape[-1]
        if not isinstance(rows, int) or tokens > _TOKENS_PER_ROW * rows:
            return None
        return self._fed(ops.arange(tokens, dtype="int32"))

    @property
    def _sampling(self) -> ScheduledSampling | None:
        found = [layer for layer in self.layers if isinstance(layer, ScheduledSampling)]
        return found[0] if found else None

    @functools.cached_property
    def _parts(self) -> dict[str, Any]:
        """The tensors between the source, the decoder and the scores."""
        call = self.get_layer("decoder")._inbound_nodes[0].arguments
        return {"fed": call.args[0], **call.kwargs}

    @functools.cached_property
    def _encoder(self) -> keras.Model:
        given = self._parts
        outputs = [given.get("memory"), given.get("memory_mask")]
        present = [one for one in outputs if one is not None] + list(given["initial_state"])
        model = keras.Model(self.inputs[0], present)

        def encoder(source):
            found = tree.flatten(model(source))
            return [None if one is None else found.pop(0) for one in outputs] + found

        return encoder

    @functools.cached_property
    def _feed(self) -> keras.Model:
        return keras.Model(self.inputs[1], self._parts["fed"])

    @functools.cached_property
    def _head(self) -> keras.Model:
        said = self.get_layer("probabilities").input if self.says_tokens else self.outputs[0]
        return keras.Model(self.get_layer("decoder").output, said)
