"""Tasks on windows of time series: identity, reconstruction and forecasting."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import keras
import numpy as np

from keras_seqzoo import data, layers, registry
from keras_seqzoo.callbacks import StateLeakage
from keras_seqzoo.diagnostics import anomaly_score, leakage
from keras_seqzoo.errors import ArgumentError, DataError
from keras_seqzoo.inspection import model_function
from keras_seqzoo.losses import NormalizedMeanSquaredError
from keras_seqzoo.metrics import identity_error
from keras_seqzoo.registry.requirements import REQUIREMENTS
from keras_seqzoo.tasks import window_figures as figures
from keras_seqzoo.tasks.base import (
    ReadingOptions,
    Section,
    Task,
    TrainingOptions,
    learning_rate,
    training_callbacks,
)
from keras_seqzoo.tasks.window_data import (
    Windows,
    aligned_targets,
    full_batches,
    load_windows,
    ordered_dataset,
    split_windows,
    targets,
)
from keras_seqzoo.tasks.window_scores import WindowScores
from keras_seqzoo.utils.argument_validation import argument_message, check_fraction, check_positive
from keras_seqzoo.utils.array_validation import as_array


class WindowTask(Task):
    """Models of time series that return readings: identity, reconstruction, forecasting."""

    requirements = REQUIREMENTS["identity"]
    option_defaults: ClassVar[Mapping[str, Any]] = {
        "sequence_length": 50,
        "sequence_stride": None,
        "block": 1,
    }
    objectives: ClassVar[Mapping[str, str]] = {
        "val_identity_cost": "min",
        "val_identity_error": "min",
        "val_state_leakage": "min",
    }
    data_types = (data.TimeSeries,)

    windows: Windows | None = None
    columns: tuple[str, ...] = ()

    @classmethod
    def of_model(cls, model: keras.Model) -> Self | None:
        """Any model that no other task knows."""
        return cls()

    # Data.

    def read(self, path: str | Path, options: ReadingOptions) -> data.TimeSeries:
        """Reads a time series."""
        if options.format is not None:
            raise ArgumentError(
                argument_message("format", "None for a time series", options.format)
            )
        return data.read_time_series(path, columns=options.columns, missing=options.missing)

    def prepare(self, examples: data.TimeSeries, options: ReadingOptions) -> data.TimeSeries:
        """The series as it is, once there are windows in it: a search is not to fail at its end."""
        _varying_windows(examples, options.sequence_length, options.sequence_length)
        return examples

    def split(
        self, examples: data.TimeSeries, fractions: Sequence[float], *, seed: int
    ) -> list[data.TimeSeries]:
        """Consecutive parts, in time order."""
        return examples.split(*fractions)

    def with_data(
        self,
        x: Any,
        y: Any = None,
        *,
        validation_data: Any = None,
        validation_split: float | None = None,
        seed: int = 0,
    ) -> Self:
        """Returns the task bound to windows.

        A time series is split by time before windows are cut, so that no window is on both sides.
        Training windows overlap by half unless `sequence_stride` is given; validation windows do
        not overlap.
        """
        split = self.validation_split if validation_split is None else validation_split
        columns = ()
        self.check_data("x", x)
        self.check_data("validation_data", validation_data)
        x, y = load_windows(x, y)
        if isinstance(x, data.TimeSeries):
            if y is not None:
                raise ArgumentError(argument_message("y", "None for a time series", type(y)))
            columns = x.columns
            if validation_data is None:
                check_fraction(validation_split=split)
                x, validation_data = x.split(1 - split, split)
            x = self._cut(x, overlap=True)
        if isinstance(validation_data, data.TimeSeries):
            validation_data = self._cut(validation_data, overlap=False)
        if self.entry.task == "forecasting" and y is None:
            x, y = targets("forecasting", as_array("x", x))
            if hasattr(validation_data, "shape"):
                validation_data = targets("forecasting", validation_data)
        return self.bound(
            windows=split_windows(
                x, y, validation_data, 0 if validation_data is not None else split
            ),
            columns=columns,
        )

    def _cut(self, series: data.TimeSeries, *, overlap: bool) -> np.ndarray:
        length, stride = self.options["sequence_length"], self.options["sequence_stride"]
        check_positive(sequence_length=length)
        if not overlap:
            stride = length
        elif stride is None:
            stride = max(length // 2, 1)
        return _varying_windows(series, length, stride)

    @property
    def size(self) -> int:
        """Number of training windows."""
        return len(self.bound_windows.x)

    @property
    def bound_windows(self) -> Windows:
        """Training and validation windows."""
        if self.windows is None:
            raise ArgumentError("The task must be bound to data. Call `with_data` first.")
        return self.windows

    @property
    def has_validation_data(self) -> bool:
        """Always: without, `with_data` raises an error."""
        return True

    def fingerprint(self) -> str:
        """Hash of the windows, shapes and types included."""
        digest = hashlib.blake2b(digest_size=16)
        for array in self.bound_windows:
            if array is None:
                digest.update(b"none")
            else:
                digest.update(f"{array.shape}{array.dtype}".encode())
                digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def describe_data(self) -> str:
        """Numbers of windows, steps and features."""
        count, steps, features = self.bound_windows.x.shape
        return (
            f"{count} training and {len(self.bound_windows.x_val)} validation windows of {steps} "
            f"steps and {features} features"
        )

    # Model.

    @property
    def monitor(self) -> tuple[str, str]:
        """The normalized MSE of the validation windows, without the regularizer's penalty."""
        return ("val_error", "min")

    @property
    def objective(self) -> tuple[str, str]:
        """The identity cost; of models that are to remember, the identity error alone."""
        remembers = self.entry.task in ("forecasting", "reconstruction")
        return ("val_identity_error" if remembers else "val_identity_cost", "min")

    def data_arguments(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The number of features."""
        if self.windows is None:
            return {}
        return self.accepted({"features": self.windows.x.shape[-1]})

    def compile(self, model: keras.Model, optimizer: keras.optimizers.Optimizer) -> None:
        """The normalized MSE as loss."""
        model.compile(optimizer, NormalizedMeanSquaredError())

    def adapt(self, model: keras.Model) -> None:
        """Adapts normalization to the training windows, and the loss to their variance."""
        windows = self.bound_windows
        if layers.has_scaling(model):
            layers.adapt(model, windows.x)
        if isinstance(model.loss, NormalizedMeanSquaredError) and model.loss.variance is None:
            y = aligned_targets(model, windows.x, windows.y)
            model.loss.adapt(y, model_function.resolve_mask(model, windows.x))

    def callbacks(self) -> list[keras.callbacks.Callback]:
        """State leakage, identity error and their sum."""
        return [self._leakage_callback()]

    def _leakage_callback(self) -> StateLeakage:
        windows = self.bound_windows
        return StateLeakage(windows.x_val, windows.y_val, block=self.options["block"])

    def train(self, model: keras.Model, options: TrainingOptions) -> keras.callbacks.History:
        """Trains with Keras's own order of rows; `val_error` is the monitored metric."""
        windows = self.bound_windows
        self._check_finite()
        y = aligned_targets(model, windows.x, windows.y)
        y_val = aligned_targets(model, windows.x_val, windows.y_val)
        loss = NormalizedMeanSquaredError()
        loss.adapt(y, model_function.resolve_mask(model, windows.x))
        if layers.has_scaling(model):
            layers.adapt(model, windows.x)
        steps = options.epochs * -(-len(windows.x) // options.batch_size)
        # As a metric too: the loss of a regularized model includes the penalty.
        error = keras.metrics.MeanMetricWrapper(loss.call, name="error")
        model.compile(self.optimizer(learning_rate(options, steps)), loss, metrics=[error])
        history = model.fit(
            windows.x,
            y,
            validation_data=(windows.x_val, y_val),
            batch_size=options.batch_size,
            epochs=options.epochs,
            verbose=options.keras_verbose,
            callbacks=[*training_callbacks(options, self.monitor), *options.callbacks],
        )
        model.compile(model.optimizer, loss)  # a file cannot hold that metric
        return history

    def _check_finite(self) -> None:
        """Refuses what is not finite, unless padding is marked."""
        if self.arguments.get("mask_value") is not None:
            return
        for name, values in (
            ("x", self.bound_windows.x),
            ("validation_data", self.bound_windows.x_val),
        ):
            if not np.isfinite(values).all():
                raise DataError(
                    f"`{name}` must be finite in float32. Received: NaN or infinity. Mark padding "
                    "with mask_value=."
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
        """Trains a compiled model; without a seed Keras shuffles the windows."""
        windows = self.bound_windows
        y = aligned_targets(model, windows.x, windows.y)
        y_val = aligned_targets(model, windows.x_val, windows.y_val)
        batches: dict[str, Any] = {"x": windows.x, "y": y, "batch_size": batch_size}
        if seed is not None and batch_size is not None:
            order = self.batch_order(batch_size=batch_size, seed=seed)
            batches = ordered_dataset(windows.x, y, itertools.islice(order, epochs))
        return model.fit(
            **batches,
            validation_data=(windows.x_val, y_val),
            validation_batch_size=batch_size,
            callbacks=[*self.callbacks(), *callbacks],
            epochs=epochs,
            **options,
        )

    def fit_data(
        self,
        model: keras.Model,
        x: Any,
        y: Any = None,
        *,
        validation_data: Any = None,
        validation_split: float = 0.0,
        epochs: int = 1,
        **options: Any,
    ) -> keras.callbacks.History:
        """Binds the task to the data, adapts and trains; metrics need validation windows."""
        task = self.with_data(
            x, y, validation_data=validation_data, validation_split=validation_split
        )
        task.adapt(model)
        return task.fit(model, epochs=epochs, **options)

    def batch_order(self, *, batch_size: int, seed: int) -> Iterator[np.ndarray]:
        """A permutation of the windows for each epoch."""
        generator = np.random.default_rng(seed)
        while True:
            rows = generator.permutation(self.size)
            yield full_batches(
                [rows[at : at + batch_size] for at in range(0, len(rows), batch_size)]
            )

    def smoke_test(self, model: keras.Model) -> None:
        """Measures the untrained model once."""
        callback = self._leakage_callback()
        callback.set_model(model)
        callback.measure()

    @property
    def population_metrics(self) -> type:
        """Identity error and state leakage."""
        from keras_seqzoo.tasks.vectorized_metrics import IdentityMetrics

        return IdentityMetrics

    # Results.

    def evaluate(
        self, model: keras.Model, x: Any, y: Any = None, *, batch_size: int | None = None
    ) -> WindowScores:
        """Scores on windows, or on a time series.

        Args:
            model: `keras.Model`.
            x: array `(windows, time, features)`, `TimeSeries`, DataFrame, Dataset or path.
            y: targets; default the input, for a forecaster the next step.
            batch_size: int, rows per call of the model.
        """
        x, y = load_windows(x, y)
        if isinstance(x, data.TimeSeries):
            x = data.make_windows(x, sequence_length=self.options["sequence_length"])
        if y is None:
            x, y = self._with_targets(model, x)
        if batch_size is None:
            batch_size = model_function.BATCH_SIZE
        return self._scores(model, x, y, batch_size=batch_size)

    def _with_targets(self, model: keras.Model, x: Any) -> tuple[Any, Any]:
        if not self._forecasts(model):
            return x, None
        return targets("forecasting", as_array("x", x), last=len(model.output_shape) == 2)

    def _forecasts(self, model: keras.Model) -> bool:
        """Whether outputs are the next readings."""
        return registry.model_task(model) == "forecasting"

    def _scores(
        self, model: keras.Model, x: Any, y: Any, *, batch_size: int = model_function.BATCH_SIZE
    ) -> WindowScores:
        options = {"block": self.options["block"], "batch_size": batch_size}
        error = identity_error(model, x, y, batch_size=batch_size)
        if len(x) < 2:
            return WindowScores(error, None)
        score = None
        if self.windows is not None and model.output_shape == model.input_shape:
            mask = model_function.resolve_mask(model, x)
            score = leakage(anomaly_score(model, self.windows.x), x, mask=mask, **options)
        return WindowScores(error, leakage(model, x, **options), score)

    def validation_scores(self, model: keras.Model) -> WindowScores:
        """Scores on the validation windows."""
        return self._scores(model, self.bound_windows.x_val, self.bound_windows.y_val)

    def predictions(
        self,
        model: keras.Model,
        path: Path | None,
        lines: Iterable[list[str]],
        options: ReadingOptions,
    ) -> Iterator[str]:
        """A line for each reading of a file, segment by segment."""
        if path is None:
            raise ArgumentError("`FILE` must be given for a model of readings.")
        series = self.read(path, options)
        yield "\t".join(series.columns)
        for segment in series.segments():
            for start in range(0, len(segment), options.sequence_length):
                part = segment[None, start : start + options.sequence_length]
                for row in model.predict_on_batch(part.astype("float32"))[0]:
                    yield "\t".join(f"{value:.7g}" for value in row)

    def report_sections(self, search: Any, scores: Mapping[str, Any]) -> list[Section]:
        """Pareto front, leakage against hyperparameters, the profile, input and output."""
        model, results, chosen = search.best_model, search.results, int(search.chosen.trial_id)
        windows = self.bound_windows
        columns = self.columns or tuple(f"feature {n}" for n in range(windows.x.shape[-1]))
        sections = [
            Section(
                "Normalized MSE against state leakage",
                "Every complete trial. No trial is better in both than those on the line.",
                (figures.pareto_front(results, chosen),),
            ),
            Section(
                "Leakage profile of the chosen model",
                "State leakage when the newest k steps are kept and all steps before come from "
                "another window.",
                (figures.leakage_profile(scores),),
            ),
        ]
        for column, label in (("units", "units"), ("recurrent_strength", "regularizer strength")):
            figure = figures.leakage_against(results, chosen, column, label)
            if figure is not None:
                text = "By kind of regularizer on the recurrent kernel."
                sections.append(Section(f"State leakage against {label}", text, (figure,)))
        sections.append(
            Section(
                "Input and output",
                "Validation windows that vary the most, in the units of the readings.",
                (figures.input_and_output(model, windows.x_val, columns),),
                wide=True,
            )
        )
        if model.output_shape == model.input_shape:
            sections.append(
                Section(
                    "Anomaly score",
                    "Error of each reading relative to the training windows; 1 is usual. Its state "
                    "leakage differs from the model's.",
                    (figures.anomaly_scores(model, windows.x, windows.x_val),),
                    wide=True,
                )
            )
        return sections

    def glossary(self) -> list[str]:
        """Normalized MSE, state leakage and memory horizon."""
        return [
            "<b>Normalized MSE</b>: mean over features of the mean squared error divided by the "
            "variance. 0 is perfect, 1 is what the mean as a constant prediction scores.",
            "<b>State leakage</b>: history dependence of the output, the share of its variance "
            "that is due to inputs before the present one; nothing to do with train/test data "
            "leakage. "
            "A window keeps its newest steps and takes another window's past; the index is the "
            "squared change of the output over twice its variance. On autocorrelated readings it "
            "is the normalized effect of that intervention and may exceed 1.",
            "<b>Memory horizon</b>: number of newest steps from which on state leakage stays below "
            "the threshold.",
        ]


def _varying_windows(series: data.TimeSeries, length: int, stride: int) -> np.ndarray:
    """Windows of a series; state leakage is not defined for fewer than two, or for constants."""
    windows = data.make_windows(series, sequence_length=length, sequence_stride=stride)
    if len(windows) < 2 or (windows == windows[:1, :1]).all():
        raise DataError(
            "A time series to train, validate or test on must have at least 2 windows that vary. "
            f"Received: {len(windows)} in {len(series)} readings. Use a shorter sequence_length, "
            "another split or a longer record."
        )
    return windows
