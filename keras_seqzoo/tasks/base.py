"""What a task knows of data, model, loss and metrics."""

from __future__ import annotations

import abc
import copy
import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import keras

from keras_seqzoo import data, registry
from keras_seqzoo.errors import ArgumentError, UnknownArgumentError
from keras_seqzoo.registry.entry import Entry
from keras_seqzoo.registry.requirements import Requirements
from keras_seqzoo.utils.argument_validation import argument_message, unknown_name_message

# Options of one task or another that `train` and `search` pass on.
TASK_OPTIONS = (
    "class_weight",
    "label_smoothing",
    "min_count",
    "sequence_length",
    "sequence_stride",
)


@dataclasses.dataclass(frozen=True)
class ReadingOptions:
    """How files are read; each task uses the options that concern its data.

    Attributes:
        columns: str, columns of a time series, comma-separated; None for all numeric ones.
        missing: str, what is done about missing values, as in `data.read_time_series`.
        sequence_length: int, steps of a window.
        sequence_stride: int, steps from window to window; None for the task's default.
        format: str, format of labeled sequences; None to tell it by the name of the file.
        source_units: str, "tokens" or "characters", units of source texts.
        target_units: str, the same of target texts.
        forecast_steps: int, steps that an encoder-decoder forecasts after each window; None for
            pairs of texts.
    """

    columns: str | None = None
    missing: str = "split"
    sequence_length: int = 50
    sequence_stride: int | None = None
    format: str | None = None
    source_units: str = "tokens"
    target_units: str = "tokens"
    forecast_steps: int | None = None


@dataclasses.dataclass(frozen=True)
class TrainingOptions:
    """Options of `keras_seqzoo.train` that every task understands."""

    epochs: int
    batch_size: int
    learning_rate: float
    learning_rate_schedule: str | None
    patience: int
    seed: int
    callbacks: tuple[keras.callbacks.Callback, ...]
    verbose: int

    @property
    def keras_verbose(self) -> Any:
        """`verbose` of `Model.fit`: a line per epoch instead of a progress bar."""
        return 2 if self.verbose else 0


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of a report.

    Attributes:
        title: str, the heading.
        text: str, one or two sentences below it.
        figures: matplotlib figures.
        table: str, HTML of a table, or "".
        wide: bool, whether it takes the full width of the page.
    """

    title: str
    text: str = ""
    figures: tuple[Any, ...] = ()
    table: str = ""
    wide: bool = False


class Task(abc.ABC):
    """What a task knows of data, model, loss and metrics, as `FairseqTask` in fairseq.

    `train`, `evaluate`, `search`, their report and the commands hold no knowledge of a kind of
    data: they ask a task. A task is made for an entry (`for_entry`), which needs no data, and is
    bound to training and validation data by `with_data`.

    To add a task, derive from this class, give it `name` and `requirements`, and pass the class to
    `register(..., task=MyTask)`.

    Attributes:
        name: str, name of the task.
        requirements: what the constructor of an entry must accept.
        option_defaults: options beside the constructor's arguments, such as `min_count`.
        objectives: direction, "min" or "max", of each metric in the logs of an epoch.
        data_types: types that `x` may have beside arrays.
        validation_split: default share of the validation part.
        default_schedule: default schedule of the learning rate in `train`.
        preprocessor: what stands between strings and arrays, or None.
        python_data: positional arguments that pass the data to `search`, for its report.
        entry: `registry.Entry`.
        arguments: constructor arguments that are the same for all models.
        options: values of the options.
    """

    name: ClassVar[str]
    requirements: ClassVar[Requirements]
    option_defaults: ClassVar[Mapping[str, Any]] = {}
    objectives: ClassVar[Mapping[str, str]] = {}
    data_types: ClassVar[tuple[type, ...]] = ()
    validation_split: ClassVar[float] = 0.2
    default_schedule: ClassVar[str] = "constant"

    preprocessor: Any = None
    python_data: str = "x"
    entry: Entry
    arguments: dict[str, Any]
    options: dict[str, Any]

    def __init__(self) -> None:
        self.options = dict(self.option_defaults)

    @classmethod
    def for_entry(cls, entry: Entry, **arguments: Any) -> Self:
        """The task of an entry, not bound to data.

        Args:
            entry: `registry.Entry`.
            **arguments: options of the task, and arguments of the constructor that are fixed.

        Raises:
            UnknownArgumentError: if neither the task nor the constructor has such an argument.
        """
        task = cls()
        task.entry = entry
        task.options |= {
            name: arguments.pop(name) for name in cls.option_defaults if name in arguments
        }
        task.arguments = arguments
        accepted = entry.arguments()
        for name, value in arguments.items():
            if name in TASK_OPTIONS and name not in accepted:
                expected = f"None for the task {entry.task!r}"
                raise ArgumentError(argument_message(name, expected, value))
            if name not in accepted:
                raise UnknownArgumentError(
                    unknown_name_message(f"argument of {entry.name}:", name, accepted)
                )
        return task

    @classmethod
    @abc.abstractmethod
    def of_model(cls, model: keras.Model) -> Self | None:
        """The task that evaluates a trained model and predicts with it; None if it cannot."""

    # Data.

    @abc.abstractmethod
    def read(self, path: str | Path, options: ReadingOptions) -> Any:
        """Reads a file or folder as data of this task."""

    def prepare(self, examples: Any, options: ReadingOptions) -> Any:
        """Turns a part of what `read` returned into data for `with_data` and `evaluate`."""
        return examples

    @abc.abstractmethod
    def split(self, examples: Any, fractions: Sequence[float], *, seed: int) -> list[Any]:
        """Splits what `read` returned into parts, one per fraction."""

    @abc.abstractmethod
    def with_data(
        self,
        x: Any,
        y: Any = None,
        *,
        validation_data: Any = None,
        validation_split: float | None = None,
        seed: int = 0,
    ) -> Self:
        """Returns the task bound to training and validation data.

        Args:
            x: training data.
            y: targets, where `x` does not hold them.
            validation_data: data to validate on, or None for a part of `x`.
            validation_split: float, that part; None for the task's default.
            seed: int, of a random split.
        """

    @property
    @abc.abstractmethod
    def size(self) -> int:
        """Number of training examples."""

    @property
    @abc.abstractmethod
    def has_validation_data(self) -> bool:
        """Whether there is data to choose an epoch by."""

    @abc.abstractmethod
    def fingerprint(self) -> str:
        """Hash of the data."""

    # Model.

    @property
    @abc.abstractmethod
    def monitor(self) -> tuple[str, str]:
        """Key of the logs by which `train` chooses an epoch, and "min" or "max"."""

    @property
    @abc.abstractmethod
    def objective(self) -> tuple[str, str]:
        """Default objective of a search, and "min" or "max"."""

    def build(self, **arguments: Any) -> keras.Model:
        """Builds a model for this data, uncompiled."""
        return registry.get(
            self.entry.name, **self.data_arguments(arguments) | self.arguments | arguments
        )

    def data_arguments(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Constructor arguments that follow from the data.

        Args:
            arguments: those that are given beside it.
        """
        return {}

    def accepted(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Those of the arguments that the constructor accepts."""
        known = self.entry.arguments()
        return {name: value for name, value in arguments.items() if name in known}

    def optimizer(self, learning_rate: Any = 1e-3, **options: Any) -> keras.optimizers.Optimizer:
        """Adam, with options such as `global_clipnorm`."""
        return keras.optimizers.Adam(learning_rate, **options)

    @abc.abstractmethod
    def compile(self, model: keras.Model, optimizer: keras.optimizers.Optimizer) -> None:
        """Compiles a model with the loss and the metrics of this task."""

    @abc.abstractmethod
    def adapt(self, model: keras.Model) -> None:
        """Adapts normalization layers, and a loss with statistics, to the training data."""

    @abc.abstractmethod
    def callbacks(self) -> list[keras.callbacks.Callback]:
        """Callbacks that write the validation metrics into the logs of an epoch."""

    @abc.abstractmethod
    def train(self, model: keras.Model, options: TrainingOptions) -> keras.callbacks.History:
        """Compiles, adapts and trains one model; its weights are then those of the best epoch."""

    @abc.abstractmethod
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
        """Trains a compiled model, with the validation metrics in the logs of each epoch.

        Args:
            model: a compiled and adapted `keras.Model`.
            epochs: int.
            batch_size: int.
            seed: int, of the order of the examples.
            callbacks: Keras callbacks, after those of the task.
            **options: of `Model.fit`, such as `verbose`.
        """

    def fit_data(self, model: keras.Model, x: Any, y: Any = None, **options: Any) -> Any:
        """`fit` on other data than the task is bound to, as `Model.fit` takes it."""
        return model.fit(x, y, **options)

    @abc.abstractmethod
    def smoke_test(self, model: keras.Model) -> None:
        """Computes the validation metrics of an untrained model once, to raise early."""

    def finalize(self, model: keras.Model) -> keras.Model:
        """The model as it is returned and saved: with preprocessing inside, where there is any."""
        return model

    # Trials that train together.

    @property
    def population_metrics(self) -> type | None:
        """Class of `tasks.vectorized_metrics` for trials that train together, or None."""
        return None

    def batch_order(self, *, batch_size: int, seed: int) -> Iterator[Any]:
        """For each epoch the rows of its batches, `(batches, batch_size)`, -1 where none is."""
        raise ArgumentError(f"Trials of the task {self.name!r} train one by one.")

    # Results.

    @abc.abstractmethod
    def evaluate(
        self, model: keras.Model, x: Any, y: Any = None, *, batch_size: int | None = None
    ) -> Any:
        """Scores of a finalized model on data; they have `to_dict`, `figures` and `__str__`."""

    def validation_scores(self, model: keras.Model) -> Any:
        """Scores of a finalized model on the validation data."""
        raise NotImplementedError

    def sequence_leakage(self, model: keras.Model) -> Any:
        """State leakage of a finalized model, where it is not among the scores; else None."""
        return None

    @abc.abstractmethod
    def predictions(
        self,
        model: keras.Model,
        path: Path | None,
        lines: Iterable[list[str]],
        options: ReadingOptions,
    ) -> Iterator[str]:
        """Predictions as lines of text, for the command `predict`.

        Args:
            model: a finalized model.
            path: file to read, or None.
            lines: lines of standard input or of the file, several at once.
            options: how a file is read.
        """

    @abc.abstractmethod
    def report_sections(self, search: Any, scores: Mapping[str, Any]) -> list[Section]:
        """Sections of a search's report.

        Args:
            search: a search that has run: `best_model`, `results`, `chosen`.
            scores: scores of the chosen model by the name of the data, such as "validation".
        """

    @abc.abstractmethod
    def glossary(self) -> list[str]:
        """Definitions of the metrics, for a report."""

    def describe_data(self) -> str:
        """Sizes of training and validation data, in words."""
        return f"{self.size} training examples"

    def check_data(self, name: str, examples: Any) -> None:
        """Raises `ArgumentError` for data that is of another task alone."""
        known = (data.TimeSeries, data.LabeledSequences, data.SequencePairs)
        if isinstance(examples, known) and not isinstance(examples, self.data_types):
            expected = f"{self.data_types[0].__name__} for the task {self.entry.task!r}"
            raise ArgumentError(argument_message(name, expected, type(examples).__name__))

    def bound(self, **attributes: Any) -> Self:
        """A copy with these attributes."""
        task = copy.copy(self)
        for name, value in attributes.items():
            setattr(task, name, value)
        return task


def training_callbacks(
    options: TrainingOptions, monitor: tuple[str, str]
) -> list[keras.callbacks.Callback]:
    """Early stopping, and halving of the learning rate with the schedule "plateau"."""
    name, mode = monitor
    callbacks: list[keras.callbacks.Callback] = []
    if options.learning_rate_schedule == "cosine":
        return callbacks
    if options.learning_rate_schedule == "plateau":
        callbacks.append(
            keras.callbacks.ReduceLROnPlateau(
                name, mode=mode, factor=0.5, patience=max(options.patience // 2, 1), min_lr=1e-5
            )
        )
    callbacks.append(
        keras.callbacks.EarlyStopping(
            name, mode=mode, patience=options.patience, restore_best_weights=True
        )
    )
    return callbacks


def learning_rate(options: TrainingOptions, steps: int) -> Any:
    """The learning rate, or its cosine schedule over so many steps."""
    if options.learning_rate_schedule == "cosine":
        return keras.optimizers.schedules.CosineDecay(options.learning_rate, steps)
    return options.learning_rate
