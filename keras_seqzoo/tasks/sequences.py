"""What tasks on sequences of their own lengths share: batches of similar lengths."""

from __future__ import annotations

import abc
from collections.abc import Iterable, Sequence
from typing import Any, Self

import keras
import numpy as np

from keras_seqzoo import layers
from keras_seqzoo.data import Batches
from keras_seqzoo.errors import ArgumentError
from keras_seqzoo.optimizers import Adam
from keras_seqzoo.tasks.base import Task, TrainingOptions, learning_rate, training_callbacks
from keras_seqzoo.utils.argument_validation import argument_message, check_rate
from keras_seqzoo.wrapping import end_to_end, inner_model, is_end_to_end, preprocessor_of

# Lengths are padded to multiples of it: a recurrence is compiled once for each length.
MULTIPLE = 4
# Gradients of long sequences are large now and then.
CLIPNORM = 5.0

# Steps of a whole training from which on compiling the recurrences takes less time than it saves.
_COMPILED_FROM = 2000
# Steps that TensorFlow runs without returning to Python.
_STEPS_PER_EXECUTION = 32


def _fit(
    model: keras.Model, batches: Batches, *, epochs: int, **options: Any
) -> keras.callbacks.History:
    """`Model.fit` on batches from `tf.data`, with recurrences compiled where it saves time."""
    if keras.backend.backend() != "tensorflow":
        return model.fit(batches, epochs=epochs, **options)
    layers.compile_recurrences(model, epochs * batches.num_batches >= _COMPILED_FROM)
    try:
        return model.fit(batches.to_dataset(), epochs=epochs, shuffle=False, **options)
    finally:
        layers.compile_recurrences(model, jit_compile=False)


class SequenceTask(Task):
    """A task on sequences of their own lengths, with a preprocessor that is fitted to them.

    Attributes:
        examples: training and validation examples.
        preprocessor: between strings or readings and arrays.
    """

    validation_split = 0.1
    default_schedule = "plateau"

    data_hint = ""
    preprocessor_type: type
    examples: tuple[Any, Any] | None = None

    @classmethod
    def for_entry(cls, entry: Any, **arguments: Any) -> Self:
        """As in `Task`; sequences have lengths of their own, so that `time` must be None."""
        if arguments.get("time") is not None:
            hint = "Sequences have lengths of their own."
            raise ArgumentError(argument_message("time", "None", arguments["time"], hint))
        task = super().for_entry(entry, **arguments)
        check_rate(label_smoothing=task.options["label_smoothing"])
        return task

    @classmethod
    def of_model(cls, model: keras.Model) -> Self | None:
        """End-to-end models with a preprocessor of this task inside."""
        if not is_end_to_end(model):
            return None
        preprocessor = preprocessor_of(model)
        if not isinstance(preprocessor, cls.preprocessor_type):
            return None
        task = cls()
        task.preprocessor = preprocessor
        return task

    # Data.

    def split(self, examples: Any, fractions: Sequence[float], *, seed: int) -> list[Any]:
        """Random parts; of labeled sequences with the same shares of each label."""
        parts: list[Any] = []
        for number in range(len(fractions) - 1, 0, -1):
            share = fractions[number] / sum(fractions[: number + 1])
            examples, part = examples.split(share, seed=seed)
            parts.insert(0, part)
        return [examples, *parts]

    def bind(
        self, examples: Any, validation: Any, validation_split: float | None, seed: int
    ) -> Self:
        """Returns the task bound to examples, with a preprocessor fitted to the training part."""
        for name, part in (("x", examples), ("validation_data", validation)):
            if part is not None and not isinstance(part, self.data_types):
                expected = self.data_types[0].__name__
                raise ArgumentError(
                    argument_message(name, expected, type(part).__name__, self.data_hint)
                )
        if validation is None:
            split = self.validation_split if validation_split is None else validation_split
            check_rate(validation_split=split)
            if split:
                examples, validation = examples.split(split, seed=seed)
        preprocessor = self.fitted(examples)
        if validation is not None:
            preprocessor.check(validation)
        return self.bound(examples=(examples, validation), preprocessor=preprocessor)

    @abc.abstractmethod
    def fitted(self, examples: Any) -> Any:
        """The preprocessor, fitted to training examples."""

    @property
    def training(self) -> Any:
        """Training examples."""
        if self.examples is None:
            raise ArgumentError("The task must be bound to data. Call `with_data` first.")
        return self.examples[0]

    @property
    def validation(self) -> Any:
        """Validation examples."""
        if not self.has_validation_data or self.examples is None:
            raise ArgumentError(
                "`validation_data` or `validation_split` must be given. Received: neither."
            )
        return self.examples[1]

    @property
    def size(self) -> int:
        """Number of training examples."""
        return len(self.training)

    @property
    def has_validation_data(self) -> bool:
        """Whether there are validation examples."""
        return self.examples is not None and self.examples[1] is not None

    # Model.

    def optimizer(self, learning_rate: Any = 1e-3, **options: Any) -> keras.optimizers.Optimizer:
        """Adam in one operation for each weight, with clipped gradients."""
        options.setdefault("global_clipnorm", CLIPNORM)
        return Adam(learning_rate, **options)

    @abc.abstractmethod
    def loss(self, model: keras.Model) -> Any:
        """The loss that suits a model of this task."""

    def compile(self, model: keras.Model, optimizer: keras.optimizers.Optimizer) -> None:
        """Compiles with the task's loss; with the accuracy where the task is not bound to data."""
        metrics = ["accuracy"] if self.preprocessor is None else None
        # PyTorch has no graph that could hold several steps.
        steps = 1 if keras.backend.backend() == "torch" else _STEPS_PER_EXECUTION
        model.compile(optimizer, self.loss(model), metrics=metrics, steps_per_execution=steps)

    @abc.abstractmethod
    def batches(self, *, batch_size: int, seed: int) -> Batches:
        """Training batches of few different shapes."""

    def train(self, model: keras.Model, options: TrainingOptions) -> keras.callbacks.History:
        """Trains on batches of similar lengths."""
        batches = self.batches(batch_size=options.batch_size, seed=options.seed)
        callbacks = [*self.callbacks(), *training_callbacks(options, self.monitor)]
        rate = learning_rate(options, options.epochs * batches.num_batches)
        self.compile(model, self.optimizer(rate))
        self.adapt(model)
        return _fit(
            model,
            batches,
            epochs=options.epochs,
            callbacks=[*callbacks, *options.callbacks],
            verbose=options.keras_verbose,
        )

    def fit(
        self,
        model: keras.Model,
        *,
        epochs: int,
        batch_size: int | None = None,
        seed: int | None = None,
        callbacks: Iterable[keras.callbacks.Callback] = (),
        **options: Any,
    ) -> keras.callbacks.History:
        """Trains a compiled model on batches of similar lengths."""
        batches = self.batches(batch_size=batch_size or 32, seed=seed or 0)
        callbacks = [*self.callbacks(), *callbacks]
        return _fit(model, batches, epochs=epochs, callbacks=callbacks, **options)

    def fit_data(self, model: keras.Model, x: Any, y: Any = None, **options: Any) -> Any:
        """`Model.fit` on arrays or batches; arrays adapt the normalization."""
        if layers.has_scaling(model) and hasattr(x, "shape"):
            layers.adapt(model, x)
        return model.fit(x, y, **options)

    def finalize(self, model: keras.Model) -> keras.Model:
        """The end-to-end model."""
        return end_to_end(model, self.preprocessor)

    def inner(self, model: keras.Model) -> keras.Model:
        """The model inside an end-to-end model, or the model itself."""
        return inner_model(model) if is_end_to_end(model) else model


def predict_strings(model: keras.Model, sentences: list[str]) -> dict[str, np.ndarray]:
    """Outputs of an end-to-end model for strings, as arrays."""
    outputs = model(keras.ops.convert_to_tensor(np.array(sentences, object)), training=False)
    return {name: keras.ops.convert_to_numpy(output) for name, output in outputs.items()}
