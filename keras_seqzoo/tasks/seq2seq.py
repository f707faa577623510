"""The task on pairs of sequences: a source, and a target of a length of its own."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import keras
import numpy as np
import pandas as pd

from keras_seqzoo import data, layers
from keras_seqzoo.callbacks import PairMetrics
from keras_seqzoo.data import Batches, PairPreprocessor, SequencePairs
from keras_seqzoo.errors import ArgumentError
from keras_seqzoo.inspection.model_graph import generator_layer
from keras_seqzoo.layers import EncoderDecoderModel
from keras_seqzoo.losses import crossentropy
from keras_seqzoo.metrics import Seq2SeqScores
from keras_seqzoo.metrics.figure import Figure
from keras_seqzoo.registry.requirements import REQUIREMENTS
from keras_seqzoo.tasks.base import ReadingOptions, Section
from keras_seqzoo.tasks.sequences import MULTIPLE, SequenceTask, predict_strings
from keras_seqzoo.utils.argument_validation import argument_message
from keras_seqzoo.wrapping import inner_model, is_end_to_end

_SHOWN = 3  # pairs whose attention or forecast a report shows


@dataclasses.dataclass(frozen=True)
class ForecastScores:
    """Scores of sequences of readings that a model generated.

    Attributes:
        normalized_mse: float, mean over features of the mean squared error divided by the variance:
            0 is perfect, 1 what the mean as a constant prediction scores.
        steps: int, the most steps of a target.
    """

    normalized_mse: float
    steps: int

    def to_dict(self) -> dict[str, Any]:
        """The scores as plain data, for JSON."""
        return dataclasses.asdict(self)

    def figures(self) -> list[Figure]:
        """Labeled numbers, for a table or a report."""
        return [Figure("normalized MSE", f"{self.normalized_mse:.3g}", "0 is perfect")]

    def __str__(self) -> str:
        return f"Normalized MSE {self.normalized_mse:.4g} over {self.steps} steps (0 is perfect)."


class Seq2SeqTask(SequenceTask):
    """Encoder-decoders of tokens or readings."""

    requirements = REQUIREMENTS["seq2seq"]
    option_defaults: ClassVar[Mapping[str, Any]] = {
        "min_count": 1,
        "label_smoothing": 0.1,
        "block": 1,
    }
    objectives: ClassVar[Mapping[str, str]] = {
        "val_accuracy": "max",
        "val_token_error_rate": "min",
        "val_error": "min",
    }
    data_types = (SequencePairs,)

    data_hint = "`keras_seqzoo.data.forecasting_pairs` makes them of a time series."
    preprocessor_type = PairPreprocessor

    # Data.

    def read(self, path: str | Path, options: ReadingOptions) -> SequencePairs | data.TimeSeries:
        """Reads pairs of texts, or a time series to forecast."""
        if self._forecast_steps(options) is not None:
            return data.read_time_series(path, columns=options.columns, missing=options.missing)
        units = {"source_units": options.source_units, "target_units": options.target_units}
        if self.preprocessor is not None:
            units = {
                "source_units": self.preprocessor.source_units,
                "target_units": self.preprocessor.target_units,
            }
        return data.read_sequence_pairs(path, **units)

    def _forecast_steps(self, options: ReadingOptions) -> int | None:
        if self.preprocessor is not None and not self.preprocessor.generates_tokens:
            return self.preprocessor.max_length
        return options.forecast_steps

    def split(
        self, examples: SequencePairs | data.TimeSeries, fractions: Sequence[float], *, seed: int
    ) -> list[Any]:
        """Parts of pairs at random; of a time series in time order."""
        if isinstance(examples, data.TimeSeries):
            return list(examples.split(*fractions))
        return super().split(examples, fractions, seed=seed)

    def prepare(self, examples: Any, options: ReadingOptions) -> Any:
        """Pairs of windows and the steps after them, from a time series."""
        steps = self._forecast_steps(options)
        if steps is None or not isinstance(examples, data.TimeSeries):
            return examples
        return data.forecasting_pairs(
            examples,
            past=options.sequence_length,
            steps=steps,
            sequence_stride=options.sequence_stride,
        )

    def with_data(
        self,
        x: Any,
        y: Any = None,
        *,
        validation_data: Any = None,
        validation_split: float | None = None,
        seed: int = 0,
    ) -> Self:
        """Returns the task bound to pairs, with the preprocessor fitted to them.

        Args:
            x: `SequencePairs`, or a path to pairs of texts.
            y: None.
            validation_data: as `x`.
            validation_split: float in [0, 1), share of the validation part; None is 0.1. 0 is for
                none.
            seed: int, of the random split.
        """
        if y is not None:
            raise ArgumentError(argument_message("y", "None, as `x` holds targets", type(y)))
        return self.bind(_loaded(x), _loaded(validation_data), validation_split, seed)

    def fitted(self, examples: SequencePairs) -> PairPreprocessor:
        """Vocabularies, or numbers of features, of source and target."""
        preprocessor = PairPreprocessor.from_data(examples, min_count=self.options["min_count"])
        if isinstance(preprocessor.source, int):  # features of readings
            mask_value = self.arguments.get("mask_value", math.nan)
            preprocessor = dataclasses.replace(preprocessor, mask_value=mask_value)
        return preprocessor

    def fingerprint(self) -> str:
        """Hash of the pairs."""
        digest = hashlib.blake2b(digest_size=16)
        for part in (self.training, self.validation):
            for sequence in (*part.sources, *part.targets):
                text = repr(sequence) if isinstance(sequence, tuple) else sequence.tobytes().hex()
                digest.update(text.encode() + b"\n")
            digest.update(repr((len(part), part.source_units, part.target_units)).encode())
        return digest.hexdigest()

    def describe_data(self) -> str:
        """Numbers of pairs."""
        return f"{self.size} training and {len(self.validation)} validation pairs"

    # Model.

    @property
    def monitor(self) -> tuple[str, str]:
        """Share of sequences that are right as a whole, or the error of readings."""
        generates_tokens = self.preprocessor.generates_tokens
        return ("val_accuracy", "max") if generates_tokens else ("val_error", "min")

    @property
    def objective(self) -> tuple[str, str]:
        """The monitored score; the loss where the task is not bound to data."""
        return ("val_loss", "min") if self.preprocessor is None else self.monitor

    def data_arguments(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Sizes of vocabularies or numbers of features, and `mask_value`."""
        return (
            {} if self.preprocessor is None else self.accepted(self.preprocessor.model_arguments())
        )

    def build(self, **arguments: Any) -> EncoderDecoderModel:
        """Builds an encoder-decoder, uncompiled."""
        model = super().build(**arguments)
        if not isinstance(model, EncoderDecoderModel):
            raise ArgumentError(
                f"The constructor of {self.entry.name!r} must return a layers.EncoderDecoderModel. "
                f"Received: {type(model).__name__}."
            )
        return model

    def loss(self, model: keras.Model) -> Any:
        """Smoothed cross-entropy of tokens, or the normalized MSE of readings."""
        if self.preprocessor is None:
            return crossentropy() if model.generates_tokens else "mse"
        if not self.preprocessor.generates_tokens:
            return layers.NormalizedMeanSquaredError()
        return layers.SmoothedCrossentropy(self.options["label_smoothing"])

    def adapt(self, model: keras.Model) -> None:
        """Adapts normalization, and the loss of readings, to the training pairs."""
        preprocessor, pairs = self.preprocessor, self.training
        target = None if preprocessor.generates_tokens else np.concatenate(pairs.targets)[None]
        if target is not None:
            model.loss.adapt(target)
        if layers.has_scaling(model):
            layers.adapt(model, preprocessor.encode_sources(pairs.sources), target=target)

    def callbacks(self) -> list[keras.callbacks.Callback]:
        """Scores of sequences that are generated from the validation sources."""
        if not self.has_validation_data:
            return []
        return [PairMetrics(self.preprocessor, self.validation)]

    def batches(self, *, batch_size: int, seed: int) -> Batches:
        """Training batches of few different shapes."""
        return self.preprocessor.batches(
            self.training, batch_size=batch_size, seed=seed, pad_to_multiple_of=MULTIPLE
        )

    def smoke_test(self, model: keras.Model) -> None:
        """Scores the untrained model on one pair."""
        PairMetrics(self.preprocessor, self.validation.take([0])).measure(model)

    # Results.

    def evaluate(
        self, model: keras.Model, x: Any, y: Any = None, *, batch_size: int | None = None
    ) -> Seq2SeqScores | ForecastScores:
        """Scores of an end-to-end model on pairs, decoded as the model does.

        Args:
            model: what `train`, `search` or `load` returned.
            x: `SequencePairs`, or a path.
            y: None.
            batch_size: int, at least 1.
        """
        x = _loaded(x)
        if not isinstance(x, SequencePairs) or y is not None:
            expected = f"SequencePairs, as {model.name!r} was trained on"
            raise ArgumentError(argument_message("x", expected, type(x).__name__))
        preprocessor = self.preprocessor
        options: dict[str, Any] = {"batch_size": 64 if batch_size is None else batch_size}
        generator = generator_layer(model)
        if preprocessor.generates_tokens and generator is not None:
            options |= {"max_length": generator.max_length, "strategy": "beam"}
            options |= {
                "num_beams": generator.num_beams,
                "length_penalty": generator.length_penalty,
            }
        return self._scores(self.inner(model), x, **options)

    def _scores(
        self, model: keras.Model, pairs: SequencePairs, **options: Any
    ) -> Seq2SeqScores | ForecastScores:
        scores = PairMetrics(self.preprocessor, pairs, **options).measure(model)
        if isinstance(scores, Seq2SeqScores):
            return scores
        return ForecastScores(float(scores), max(map(len, pairs.targets)))

    def validation_scores(self, model: keras.Model) -> Seq2SeqScores | ForecastScores:
        """Scores on the validation pairs: of an end-to-end model as it decodes, else greedy."""
        if is_end_to_end(model):
            return self.evaluate(model, self.validation)
        return self._scores(model, self.validation)

    def predictions(
        self,
        model: keras.Model,
        path: Path | None,
        lines: Iterable[list[str]],
        options: ReadingOptions,
    ) -> Iterator[str]:
        """A line per sentence with the decoded sequence, or per forecast step of a time series."""
        if self.preprocessor.generates_tokens:
            for sentences in lines:
                outputs = predict_strings(model, sentences)
                for row, sentence in enumerate(sentences):
                    target = outputs["targets"][row].decode("utf-8")
                    yield f"{target}\t{np.exp(outputs['scores'][row]):.4f}\t{sentence}"
            return
        if path is None:
            raise ArgumentError("`FILE` must be given for a model of readings.")
        series = data.read_time_series(path, columns=options.columns, missing=options.missing)
        yield "\t".join(series.columns)
        past = list(series.segments())[-1][None, -options.sequence_length :]
        for row in model.predict_on_batch(past.astype("float32"))[0]:
            yield "\t".join(f"{value:.7g}" for value in row)

    def report_sections(self, search: Any, scores: Mapping[str, Any]) -> list[Section]:
        """Accuracy against length, attention or forecasts of the first pairs, mistakes."""
        validation, model = scores["validation"], inner_model(search.best_model)
        if not isinstance(validation, Seq2SeqScores):
            text = "The first validation pairs: source, target and forecast of the first feature."
            return [Section("Forecasts", text, tuple(self._forecasts(model)), wide=True)]
        length = validation.plot().figure
        sections = [
            Section("Accuracy against length", "By the length of the target.", (length,)),
        ]
        attention = tuple(self._attention(model))
        if attention:
            text = "The first validation pairs: weights of each target step over the source."
            sections.append(Section("Attention", text, attention, wide=True))
        if validation.mistakes:
            sections.append(
                Section(
                    "Mistakes", "The first wrong predictions.", table=self._mistakes(validation)
                )
            )
        return sections

    def _first_pairs(self) -> list[tuple[Any, Any]]:
        pairs = self.validation
        return list(zip(pairs.sources, pairs.targets, strict=True))[:_SHOWN]

    def _attention(self, model: Any) -> Iterator[Any]:
        if model.get_layer("decoder").attention is None:
            return
        preprocessor = self.preprocessor
        for source, target in self._first_pairs():
            if isinstance(source, tuple) and source and target:
                ax = model.plot_attention(
                    preprocessor.encode_sources([source])[0],
                    preprocessor.target.encode(target),
                    source_labels=source,
                    target_labels=target,
                )
                yield ax.figure

    def _forecasts(self, model: Any) -> Iterator[Any]:
        from matplotlib.figure import Figure as Plot

        for source, target in self._first_pairs():
            inputs = self.preprocessor.encode_sources([source])
            forecast = model.generate(inputs, max_length=len(target)).sequences
            figure = Plot(figsize=(9, 2.6), layout="constrained")
            ax = figure.add_subplot()
            steps = np.arange(len(target))
            if not isinstance(source, tuple):
                ax.plot(np.arange(-len(source), 0), source[:, 0], color="#888", label="source")
            ax.plot(steps, target[:, 0], color="#222", label="target")
            ax.plot(steps, forecast[0, :, 0], color="#c0392b", label="forecast")
            ax.set(xlabel="steps from the end of the source", ylabel="first feature")
            ax.legend(frameon=False, fontsize="small")
            yield figure

    def _mistakes(self, scores: Seq2SeqScores) -> str:
        sources = self.validation.sources
        table = pd.DataFrame(
            [
                {
                    "source": " ".join(sources[index])
                    if isinstance(sources[index], tuple)
                    else f"{len(sources[index])} readings",
                    "target": " ".join(target),
                    "prediction": " ".join(prediction),
                }
                for index, target, prediction in scores.mistakes
            ]
        )
        return table.to_html(border=0, index=False)

    def glossary(self) -> list[str]:
        """Accuracy, token error rate and normalized MSE."""
        if not self.preprocessor.generates_tokens:
            return [
                "<b>Normalized MSE</b>: mean squared error of readings that are each generated "
                "from the one before, divided by the variance. 0 is perfect, 1 is what the mean as "
                "a constant prediction scores."
            ]
        return [
            "<b>Accuracy</b>: share of sequences with every token and the end right. The "
            "prediction is the best hypothesis of a beam search.",
            "<b>Token error rate</b>: insertions, deletions and substitutions over the number of "
            "true tokens.",
        ]


def _loaded(x: Any) -> Any:
    return data.read_sequence_pairs(x) if isinstance(x, (str, Path)) else x
