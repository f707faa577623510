"""Encoder-decoder model: `generate` and `attention` on top of a Functional Keras model."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from keras_seqzoo.errors import ArgumentError, DataError
from keras_seqzoo.layers.generation import samplers
from keras_seqzoo.layers.generation.generate import GenerationMixin
from keras_seqzoo.layers.masking import PACKAGE
from keras_seqzoo.layers.seq2seq.decoder import AttentionMemory, Decoder, DecoderState, Kernels
from keras_seqzoo.layers.seq2seq.scheduled_sampling import ScheduledSampling
from keras_seqzoo.utils import compat
from keras_seqzoo.utils.argument_validation import check_names
from keras_seqzoo.utils.array_validation import as_array, as_tokens

_TARGET_LENGTH = 16  # tokens of a target, about
_SOURCE_LENGTH_MULTIPLE = 8  # sources are padded to it: a loop is compiled once for each length


@keras.saving.register_keras_serializable(package=PACKAGE)
class EncoderDecoderModel(GenerationMixin, keras.Model):
    """Functional model that predicts the next target step, and generates targets from a source.

    `fit` and `predict` are Keras's and take the target as an input. `generate` takes the source
    alone and feeds predictions back, in one compiled loop. It needs nothing but the graph: a layer
    named "decoder", and for tokens a softmax layer named "probabilities". A saved and loaded model
    therefore generates too. With a `ScheduledSampling` layer, training replaces some steps of the
    target by predictions.

    Shapes: source `(batch, source)` or `(batch, source, features)` and target `(batch, target)` or
        `(batch, target, features)` -> `(batch, target, vocabulary)`, probabilities, or
        `(batch, target, features)`.
    Masking: that of the layers in the graph.
    State: none kept between calls.

    Args:
        *args: inputs `[source, target]` and outputs, as of `keras.Model`.
        **kwargs: as of `keras.Model`.
    """

    def call(self, inputs, training=None, mask=None):
        sampling = self._scheduled_sampling
        if training and sampling is not None:
            source, target = compat.standardize_inputs(self, inputs)
            predictions = super().call([source, target], training=training, mask=mask)
            inputs = [source, sampling.mix(target, predictions)]
        return super().call(inputs, training=training, mask=mask)

    def attention(self, source: Any, target: Any) -> np.ndarray:
        """Attention weights of each target step over the steps of its source.

        Args:
            source: one source as the model takes it, `(source,)` tokens or `(source, features)`.
            target: its target, `(target,)` tokens without START and END, or `(target, features)`.

        Returns:
            `(steps, source)`, a row per reading, or per token and one for the end token; each row
            sums to 1.

        Raises:
            ArgumentError: if the model has no attention.
            DataError: if the source or the target does not fit the model, or has no step; a target
                of tokens may be empty.
        """
        if not self.has_attention:
            raise ArgumentError("`attention` must be called on a model with attention.")
        source, num_steps = self.prepare_source(as_array("source", source)[None])
        target = self._prepare_target(target)
        if self.generates_tokens:
            target_inputs = np.array([samplers.START, *target], np.int32)
        else:
            target_inputs = np.concatenate([np.zeros_like(target[:1]), target[:-1]])
            target_inputs = target_inputs.astype(np.float32)
        memory, state = self.encode(ops.convert_to_tensor(source))
        rows = []
        for step_input in target_inputs:
            _, state, weights = self.step(ops.convert_to_tensor(step_input[None]), state, memory)
            rows.append(ops.convert_to_numpy(weights)[0, :num_steps])
        return np.stack(rows)

    def plot_attention(
        self,
        source: Any,
        target: Any,
        *,
        source_labels: list[str] | None = None,
        target_labels: list[str] | None = None,
        ax: Any = None,
    ) -> Any:
        """Plots `attention` as an image: the source from left to right, the target downwards.

        Args:
            source: as of `attention`.
            target: as of `attention`.
            source_labels: list of str, labels of the steps of the source.
            target_labels: list of str, labels of the steps of the target, without its end token.
            ax: matplotlib axes; default those of a new figure.

        Returns:
            The axes.

        Raises:
            ArgumentError: if there is not one label per step.
        """
        weights = self.attention(source, target)
        if source_labels is not None:
            check_names(weights.shape[1], source_labels=source_labels)
        if target_labels is not None:
            check_names(len(weights) - self.generates_tokens, target_labels=target_labels)
        if ax is None:
            from matplotlib.figure import Figure

            height, width = (min(2 + 0.3 * steps, 12) for steps in weights.shape)
            ax = Figure(figsize=(width, height), layout="constrained").add_subplot()
        ax.imshow(weights, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        if source_labels is not None:
            ax.set_xticks(range(len(source_labels)), source_labels)
        if target_labels is not None:
            ax.set_yticks(range(len(weights)), [*target_labels, *["end"] * self.generates_tokens])
        ax.set_xlabel("source")
        ax.set_ylabel("target")
        return ax

    def encode(self, source: Any) -> tuple[AttentionMemory, DecoderState]:
        """Encodes a source: what the decoder attends to, and its first state.

        Args:
            source: tensor, as the model takes it.
        """
        memory, mask, *initial = self._encoder(source)
        decoder = self._decoder
        return decoder.project_memory(memory, mask, decoder.kernels()), decoder.first_state(initial)

    def step(self, inputs: Any, state: DecoderState, memory: AttentionMemory) -> tuple:
        """Predicts the next step of the target.

        Args:
            inputs: the last tokens, int `(batch,)`, or readings, `(batch, features)`.
            state: as `encode` returns it.
            memory: as `encode` returns it.

        Returns:
            Log-probabilities of tokens, or readings; the next state; and attention weights or None.
        """
        kernels = self._decoder.kernels()
        return self._step_projected(self._project(inputs, kernels), state, memory, kernels)

    def make_step(self, memory: AttentionMemory, batch_size: Any) -> samplers.StepFunction:
        kernels = self._decoder.kernels()
        project = functools.partial(self._project, kernels=kernels)
        is_small = isinstance(batch_size, int) and self.output_dim <= _TARGET_LENGTH * batch_size
        if self.generates_tokens and is_small:
            # A table of all tokens has no more rows than the loop would project one by one.
            table = project(ops.arange(self.output_dim, dtype="int32"))
            project = functools.partial(ops.take, table, axis=0)
        return lambda inputs, state: self._step_projected(project(inputs), state, memory, kernels)

    @property
    def _decoder(self) -> Decoder:
        return self.get_layer("decoder")

    def _project(self, inputs, kernels: Kernels):
        """Embeds or scales one step of the target, and projects it for `Decoder.step`."""
        return self._decoder.project_inputs(self._target_model(inputs[:, None])[:, 0], kernels)

    def _step_projected(self, projected, state, memory, kernels: Kernels):
        output, state, weights = self._decoder.step(projected, state, memory, kernels)
        prediction = self._output_model(output[:, None])[:, 0]
        weights = None if weights is None else ops.cast(weights, "float32")
        if not self.generates_tokens:
            return ops.cast(prediction, self.readings_dtype), state, weights
        return ops.log_softmax(ops.cast(prediction, "float32"), axis=-1), state, weights

    @property
    def generates_tokens(self) -> bool:
        """Whether the target is tokens; otherwise it is readings."""
        return len(self.inputs[1].shape) == 2

    @property
    def output_dim(self) -> int:
        """Size of the target vocabulary, or features of a target reading."""
        return self.output_shape[-1]

    @property
    def source_dim(self) -> int:
        """Size of the source vocabulary, or features of a source reading."""
        shape = self.inputs[0].shape
        return shape[-1] if len(shape) == 3 else self.get_layer("embedding").input_dim

    @property
    def readings_dtype(self) -> str:
        """Dtype of target readings."""
        return self.inputs[1].dtype

    @property
    def has_attention(self) -> bool:
        """Whether the decoder attends to the source."""
        return self._decoder.attention is not None

    def source_mask(self, memory: AttentionMemory) -> Any:
        return memory.mask

    def prepare_source(self, source: Any) -> tuple[np.ndarray, int]:
        source = as_array("source", source)
        rank = len(self.inputs[0].shape)
        if source.ndim != rank or 0 in source.shape:
            raise DataError(
                f"`source` must have {rank} axes, at least one row and at least one step. "
                f"Received: shape {source.shape}."
            )
        num_steps = source.shape[1]
        _check_steps("source", source, self.source_dim, tokens=rank == 2)
        if rank == 3:
            return source.astype(self.inputs[0].dtype), num_steps
        padded_steps = num_steps + -num_steps % _SOURCE_LENGTH_MULTIPLE
        padded = np.zeros((len(source), padded_steps), self.inputs[0].dtype)
        padded[:, :num_steps] = source
        return padded, num_steps

    def _prepare_target(self, target: Any) -> np.ndarray:
        target = as_array("target", target)
        if self.generates_tokens and not target.size:
            return np.zeros(0, np.int32)
        rank = len(self.inputs[1].shape) - 1
        if target.ndim != rank or 0 in target.shape:
            raise DataError(
                f"`target` must be one target of {rank} axes and at least one step. "
                f"Received: shape {target.shape}."
            )
        _check_steps("target", target, self.output_dim, tokens=self.generates_tokens)
        return target

    @property
    def _scheduled_sampling(self) -> ScheduledSampling | None:
        return next((x for x in self.layers if isinstance(x, ScheduledSampling)), None)

    @functools.cached_property
    def _decoder_arguments(self) -> dict[str, Any]:
        """The symbolic tensors that the decoder is called with."""
        call = compat.inbound_nodes(self.get_layer("decoder"))[0].arguments
        return {"inputs": call.args[0], **call.kwargs}

    @functools.cached_property
    def _encoder(self) -> Callable[[Any], list]:
        """From the source to the memory or None, its mask or None, and the initial states."""
        arguments = self._decoder_arguments
        memory = [arguments.get("memory"), arguments.get("memory_mask")]
        outputs = [x for x in memory if x is not None] + list(arguments["initial_state"])
        model = keras.Model(self.inputs[0], outputs)

        def encoder(source):
            results = iter(tree.flatten(model(source)))
            return [None if x is None else next(results) for x in memory] + list(results)

        return encoder

    @functools.cached_property
    def _target_model(self) -> keras.Model:
        """From the target to the inputs of the decoder."""
        return keras.Model(self.inputs[1], self._decoder_arguments["inputs"])

    @functools.cached_property
    def _output_model(self) -> keras.Model:
        """From the outputs of the decoder to logits of tokens, or readings."""
        outputs = self.outputs[0]
        if self.generates_tokens:
            outputs = self.get_layer("probabilities").input
        return keras.Model(self._decoder.output, outputs)


def _check_steps(name: str, array: np.ndarray, size: int, *, tokens: bool) -> None:
    """Raises `DataError` unless these are tokens below `size`, or readings of `size` features."""
    if tokens:
        as_tokens(name, array, size)
    elif array.shape[-1] != size or array.dtype.kind not in "iuf":
        raise DataError(
            f"`{name}` must be readings of {size} features. Received: shape {array.shape}, "
            f"dtype {array.dtype}."
        )
