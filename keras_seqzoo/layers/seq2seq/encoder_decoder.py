"""The model that says a sequence of another length: `generate`, beside Keras's own verbs."""

from __future__ import annotations

import functools
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from keras_seqzoo.errors import ArgumentError, DataError
from keras_seqzoo.layers.generation import samplers
from keras_seqzoo.layers.generation.generate import GenerationMixin
from keras_seqzoo.layers.masking import PACKAGE
from keras_seqzoo.layers.seq2seq.scheduled_sampling import ScheduledSampling
from keras_seqzoo.utils import compat
from keras_seqzoo.utils.argument_validation import check_names
from keras_seqzoo.utils.array_validation import as_array, as_tokens

_TOKENS_PER_ROW = 16  # about the length of an answer
_MULTIPLE = 8  # sources are padded to multiples of it: a loop is compiled once for each length


@keras.saving.register_keras_serializable(package=PACKAGE)
class EncoderDecoderModel(GenerationMixin, keras.Model):
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
            source, target = compat.standardize_inputs(self, inputs)
            said = super().call([source, target], training=training, mask=mask)
            inputs = [source, sampling.mixed(target, said)]
        return super().call(inputs, training=training, mask=mask)

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
            DataError: if the source or the target is of another kind than the model knows, or has
                no step; of tokens, a target may be empty.
        """
        if not self.looks:
            raise ArgumentError("`attention` must not be asked of a model without it.")
        source, steps = self.checked_source(as_array("source", source)[None])
        target = self._checked_target(target)
        if self.generates_tokens:
            so_far = np.array([samplers.START, *target], np.int32)
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

        Raises:
            ArgumentError: if names are not one per step.
        """
        weights = self.attention(source, target)
        if source_names is not None:
            check_names(weights.shape[1], source_names=source_names)
        if target_names is not None:
            check_names(len(weights) - self.generates_tokens, target_names=target_names)
        if ax is None:
            from matplotlib.figure import Figure

            size = [min(2 + 0.3 * steps, 12) for steps in weights.shape[::-1]]
            ax = Figure(figsize=size, layout="constrained").add_subplot()
        ax.imshow(weights, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        if source_names is not None:
            ax.set_xticks(range(len(source_names)), source_names)
        if target_names is not None:
            ax.set_yticks(range(len(weights)), [*target_names, *["end"] * self.generates_tokens])
        ax.set_xlabel("source")
        ax.set_ylabel("target")
        return ax

    def encode(self, source):
        """What decoding starts from: the memory and its mask, and the decoder's first state."""
        memory, mask, *initial = self._encoder(source)
        decoder = self.get_layer("decoder")
        return decoder.source(memory, mask, decoder.kernels()), decoder.begin(initial)

    def step(self, before, state, source):
        """What comes next: log-probabilities of tokens, or a reading.

        Args:
            before: the last token, int `(batch,)`, or reading, `(batch, features)`.
            state: the decoder's.
            source: of `encode`.

        Returns:
            That, the state after, and the weights of attention, or None without.
        """
        kernels = self._decoder.kernels()
        return self._go_on(before, self._fed(before, kernels), state, source, kernels)

    def stepping(self, looked_at, rows):
        """`step`; what tokens feed is looked up, unless there are more than a loop may feed."""
        few = isinstance(rows, int) and self.width <= _TOKENS_PER_ROW * rows
        kernels, table = self._decoder.kernels(), None
        if self.generates_tokens and few:
            table = self._fed(ops.arange(self.width, dtype="int32"), kernels)

        def step(before, state):
            fed = self._fed(before, kernels) if table is None else ops.take(table, before, axis=0)
            return self._go_on(before, fed, state, looked_at, kernels)

        return step

    @property
    def _decoder(self):
        return self.get_layer("decoder")

    def _fed(self, before, kernels):
        return self._decoder.feed(self._feed(before[:, None])[:, 0], kernels)

    def _go_on(self, before, fed, state, source, kernels):
        output, state, weights = self._decoder.step_of(fed, state, source, kernels)
        said = self._head(output[:, None])[:, 0]
        weights = None if weights is None else ops.cast(weights, "float32")
        if not self.generates_tokens:
            return ops.cast(said, before.dtype), state, weights
        return ops.log_softmax(ops.cast(said, "float32"), axis=-1), state, weights

    @property
    def generates_tokens(self) -> bool:
        """Whether it says tokens; if not, it says readings."""
        return len(self.inputs[1].shape) == 2

    @property
    def width(self) -> int:
        """How many tokens it knows, or features of a reading."""
        return self.output_shape[-1]

    @property
    def source_width(self) -> int:
        """How many tokens of a source it knows, or features of a reading."""
        shape = self.inputs[0].shape
        return shape[-1] if len(shape) == 3 else self.get_layer("embedding").input_dim

    @property
    def value_dtype(self) -> str:
        """Of the readings that it says."""
        return self.inputs[1].dtype

    @property
    def looks(self) -> bool:
        """Whether it has attention."""
        return self.get_layer("decoder").attention is not None

    def real_steps(self, looked_at):
        return looked_at.mask

    def checked_source(self, source) -> tuple[np.ndarray, int]:
        source = as_array("source", source)
        rank = len(self.inputs[0].shape)
        if source.ndim != rank or 0 in source.shape:
            raise DataError(
                f"`source` must have at least one row of at least one step, {rank} axes in all. "
                f"Received: shape {source.shape}."
            )
        steps = source.shape[1]
        _check_known("source", source, self.source_width, tokens=rank == 2)
        if rank == 3:
            return source.astype(self.inputs[0].dtype), steps
        padded = np.zeros((len(source), steps + -steps % _MULTIPLE), self.inputs[0].dtype)
        padded[:, :steps] = source
        return padded, steps

    def _checked_target(self, target) -> np.ndarray:
        target = as_array("target", target)
        if self.generates_tokens and not target.size:
            return np.zeros(0, np.int32)
        rank = len(self.inputs[1].shape) - 1
        if target.ndim != rank or 0 in target.shape:
            raise DataError(
                f"`target` must be one, of {rank} axes, of at least one step. "
                f"Received: shape {target.shape}."
            )
        _check_known("target", target, self.width, tokens=self.generates_tokens)
        return target

    @property
    def _sampling(self) -> ScheduledSampling | None:
        found = [layer for layer in self.layers if isinstance(layer, ScheduledSampling)]
        return found[0] if found else None

    @functools.cached_property
    def _parts(self) -> dict[str, Any]:
        """The tensors between the source, the decoder and the scores."""
        call = compat.inbound_nodes(self.get_layer("decoder"))[0].arguments
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
        said = self.get_layer("probabilities").input if self.generates_tokens else self.outputs[0]
        return keras.Model(self.get_layer("decoder").output, said)


def _check_known(name: str, given: np.ndarray, width: int, *, tokens: bool) -> None:
    """Raises `DataError` unless these are tokens that a model knows, or readings as wide as its."""
    if not tokens:
        if given.shape[-1] != width or given.dtype.kind not in "iuf":
            raise DataError(
                f"`{name}` must be readings of {width} features. Received: shape {given.shape}, "
                f"dtype {given.dtype}."
            )
        return
    as_tokens(name, given, width)
