"""Tasks on labeled sequences: one label for each sequence, or one tag for each step."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import keras
import numpy as np
import pandas as pd

from keras_seqzoo import data, layers
from keras_seqzoo.callbacks import SequenceMetrics
from keras_seqzoo.data import Batches, LabeledSequences, SequencePreprocessor
from keras_seqzoo.data.batching import POOL, bucketed_batches
from keras_seqzoo.errors import ArgumentError, DataError
from keras_seqzoo.losses import crossentropy
from keras_seqzoo.metrics import LabelScores
from keras_seqzoo.registry.requirements import REQUIREMENTS
from keras_seqzoo.tasks.base import ReadingOptions, Section
from keras_seqzoo.tasks.sequence_leakage import SequenceLeakage, measure_sequence_leakage
from keras_seqzoo.tasks.sequences import MULTIPLE, SequenceTask, predict_strings
from keras_seqzoo.tasks.window_data import arrays_of_dataset, full_batches
from keras_seqzoo.utils.argument_validation import (
    argument_message,
    check_fraction,
    check_mask_value,
    check_positive,
)
from keras_seqzoo.utils.array_validation import as_array

_MONITORED = {"labels": "val_accuracy", "tags": "val_f1"}
# All words of the training text are known; some must not be, or the unknown word is never trained.
_WORD_DROPOUT = 0.1
# Padded steps for each real one up to which sequences of a population are padded to the longest.
_MAX_PADDING = 2.0


class LabelingTask(SequenceTask):
    """Classifiers and taggers of tokens or readings."""

    requirements = REQUIREMENTS["tagging"]
    option_defaults: ClassVar[Mapping[str, Any]] = {
        "min_count": 1,
        "label_smoothing": 0.0,
        "class_weight": None,
        "block": 1,
    }
    objectives: ClassVar[Mapping[str, str]] = {
        "val_f1": "max",
        "val_accuracy": "max",
        "val_precision": "max",
        "val_recall": "max",
    }
    data_types = (LabeledSequences,)

    preprocessor_type = SequencePreprocessor

    strings: bool = True  # whether the final model returns labels as strings, not as class ids

    # Data.

    @property
    def target(self) -> str:
        """What is predicted, "labels" or "tags"."""
        if self.preprocessor is not None:
            return self.preprocessor.target
        return "labels" if self.entry.task == "classification" else "tags"

    def read(self, path: str | Path, options: ReadingOptions) -> LabeledSequences:
        """Reads labeled sequences."""
        return data.read_labeled_sequences(path, format=options.format)

    def with_data(
        self,
        x: Any,
        y: Any = None,
        *,
        validation_data: Any = None,
        validation_split: float | None = None,
        seed: int = 0,
    ) -> Self:
        """Returns the task bound to labeled sequences, with the preprocessor fitted to them.

        Args:
            x: `LabeledSequences`, or readings `(batch, time, features)` with `y`, or a path.
            y: classes of readings, `(batch,)` or `(batch, time)`, ids from 0 on or strings.
            validation_data: as `x`, or a pair (x, y).
            validation_split: float in [0, 1), share of the validation part; None is 0.1. 0 is for
                none.
            seed: int, of the random split.
        """
        self.check_data("x", x)
        x, y = self._loaded(x, y)
        if not isinstance(x, LabeledSequences):
            return self._with_arrays(x, y, validation_data, validation_split, seed)
        if y is not None:
            raise ArgumentError(argument_message("y", "None, as `x` holds its labels", type(y)))
        validation, _ = self._loaded(validation_data, None)
        return self.bind(x, validation, validation_split, seed)

    def _loaded(self, x: Any, y: Any) -> tuple[Any, Any]:
        if isinstance(x, (str, Path)):
            return data.read_labeled_sequences(x), y
        if isinstance(x, pd.DataFrame):
            return data.labeled_sequences_from_dataframe(x), y
        return arrays_of_dataset(x, y)

    def fitted(self, examples: LabeledSequences) -> SequencePreprocessor:
        """Vocabulary, classes, and characters where the entry uses them."""
        accepted = self.entry.arguments()
        preprocessor = SequencePreprocessor.from_data(
            examples,
            target=self.target,
            characters=accepted.get("character_vocabulary_size") is not None,
            min_count=self.options["min_count"],
        )
        width = "features" if preprocessor.tokens is None else "vocabulary_size"
        if width not in accepted:
            kind = "readings" if preprocessor.tokens is None else "tokens"
            raise DataError(
                f"`x` must suit {self.entry.name!r}, whose constructor does not take `{width}`. "
                f"Received: sequences of {kind}."
            )
        if preprocessor.tokens is None:
            mask_value = math.nan if "mask_value" in accepted else None
            mask_value = self.arguments.get("mask_value", mask_value)
            preprocessor = dataclasses.replace(preprocessor, mask_value=mask_value)
        self._check_classes(preprocessor)
        return preprocessor

    def _check_classes(self, preprocessor: SequencePreprocessor) -> None:
        count = len(preprocessor.classes)
        if self.arguments.get("classes", count) != count:
            expected = f"{count}, the number in the data"
            raise ArgumentError(argument_message("classes", expected, self.arguments["classes"]))

    def _with_arrays(
        self, x: Any, y: Any, validation_data: Any, validation_split: float | None, seed: int
    ) -> Self:
        """Readings as arrays, with ids or names of classes."""
        mask_value, classes = self.arguments.get("mask_value"), self.arguments.get("classes")
        parts = [("x", "y", x, y)]
        if validation_data is not None:
            if not isinstance(validation_data, (tuple, list)) or len(validation_data) != 2:
                raise ArgumentError(
                    argument_message("validation_data", "a pair (x, y)", type(validation_data))
                )
            parts.append(("validation_data", "validation_data", *validation_data))
        if classes is not None:
            check_positive(classes=classes)
        check_mask_value(mask_value)
        sequences = [_sequences_of_arrays(self.target, *part, mask_value) for part in parts]
        highest = [class_ for _, class_ in sequences if class_ is not None]
        if highest and len(highest) < len(parts):
            raise DataError(
                "`y` and the targets in `validation_data` must both be ids or both names of "
                "classes. Received: one of either."
            )
        if len(parts) == 1:
            split = self.validation_split if validation_split is None else validation_split
            check_fraction(validation_split=split)
            examples, validation = sequences[0][0].split(split, seed=seed)
        else:
            examples, validation = (part for part, _ in sequences)
        names = examples.unique_labels if self.target == "labels" else examples.unique_tags
        if highest:
            names = tuple(str(class_) for class_ in range(max(classes or 0, max(highest) + 1)))
        preprocessor = SequencePreprocessor(
            self.target, names, features=examples.features, mask_value=mask_value
        )
        preprocessor.check(validation)
        self._check_classes(preprocessor)
        return self.bound(
            examples=(examples, validation),
            preprocessor=preprocessor,
            strings=not highest,
            python_data="x, y",
        )

    def fingerprint(self) -> str:
        """Hash of the sequences, their labels and classes."""
        digest = hashlib.blake2b(digest_size=16)
        for part in (self.training, self.validation):
            for sequence in part.sequences:
                text = repr(sequence) if part.has_tokens else sequence.tobytes().hex()
                digest.update(text.encode() + b"\n")
            digest.update(repr((part.labels, part.tags)).encode())
        digest.update(repr((self.preprocessor.classes, self.strings)).encode())
        return digest.hexdigest()

    def describe_data(self) -> str:
        """Numbers of sequences."""
        return f"{self.size} training and {len(self.validation)} validation sequences"

    # Model.

    @property
    def monitor(self) -> tuple[str, str]:
        """Accuracy of labels, F1 of tags."""
        return _MONITORED[self.target], "max"

    @property
    def objective(self) -> tuple[str, str]:
        """The monitored score; the accuracy where the task is not bound to data."""
        return ("val_accuracy", "max") if self.preprocessor is None else self.monitor

    def data_arguments(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Sizes, `mask_value`, dropout of words, and constraints of BIO tags with a CRF."""
        preprocessor = self.preprocessor
        if preprocessor is None:
            return {}
        accepted = self.entry.arguments()
        from_data = preprocessor.model_arguments()
        if preprocessor.tokens is not None and not accepted.get("word_dropout"):
            from_data |= {"word_dropout": _WORD_DROPOUT}
        if (accepted | self.arguments | dict(arguments)).get("head") == "crf":
            bio = all(tag == "O" or tag[:2] in ("B-", "I-") for tag in preprocessor.classes)
            constraints = layers.bio_constraints(list(preprocessor.classes)) if bio else None
            from_data |= {"constraints": constraints}
        return self.accepted(from_data)

    def loss(self, model: keras.Model) -> keras.losses.Loss | None:
        """The loss that suits the head; a CRF brings its own."""
        smoothing = self.options["label_smoothing"]
        if isinstance(model, layers.CRFModel):
            if smoothing:
                hint = "A CRF is trained by the likelihood of whole sequences."
                raise ArgumentError(
                    argument_message("label_smoothing", "0 with a CRF", smoothing, hint)
                )
            return None
        return crossentropy(smoothing)

    def adapt(self, model: keras.Model) -> None:
        """Adapts normalization to the steps of the training sequences."""
        if layers.has_scaling(model):
            layers.adapt(model, np.concatenate(self.training.sequences)[None])

    def callbacks(self) -> list[keras.callbacks.Callback]:
        """F1, precision, recall and accuracy of the validation sequences."""
        if not self.has_validation_data:
            return []
        return [SequenceMetrics(self.preprocessor, self.validation)]

    def batches(self, *, batch_size: int, seed: int) -> Batches:
        """Training batches of few different shapes."""
        return self.preprocessor.batches(
            self.training,
            batch_size=batch_size,
            class_weight=self.options["class_weight"],
            seed=seed,
            pad_to_multiple_of=MULTIPLE,
            pool=self._pool,
        )

    @property
    def _pool(self) -> int:
        """Number of batches whose sequences are sorted by length.

        Where length tells the label, a batch of similar lengths is a batch of few labels: those are
        drawn at random.
        """
        return 1 if self.target == "labels" else POOL

    def smoke_test(self, model: keras.Model) -> None:
        """Scores the untrained model on one sequence."""
        SequenceMetrics(self.preprocessor, self.validation.take([0])).measure(model)

    def finalize(self, model: keras.Model) -> keras.Model:
        """The end-to-end model; compiled as Keras users do where classes are ids."""
        if self.strings:
            return super().finalize(model)
        optimizer = keras.optimizers.Adam.from_config(model.optimizer.get_config())
        optimizer.build(model.trainable_variables)
        model.compile(optimizer, model.loss, metrics=["accuracy"])
        return model

    # Trials that train together.

    @property
    def population_metrics(self) -> type:
        """Scores of classes."""
        from keras_seqzoo.tasks.vectorized_metrics import ClassMetrics

        return ClassMetrics

    @property
    def population_obstacle(self) -> str | None:
        """Why trials on this data cannot train together, or None."""
        preprocessor = self.preprocessor
        if preprocessor.tokens is not None:
            return "tokens are in batches of similar lengths"
        for part in (self.training, self.validation):
            if part.lengths.max() * len(part) > (1 + _MAX_PADDING) * part.lengths.sum():
                return "lengths are too different to be padded to the longest"
            names = part.unique_labels if self.target == "labels" else part.unique_tags
            if not set(names) <= set(preprocessor.classes):
                return "some classes are unknown"
        if self.target == "tags" and any(name[:2] in ("B-", "I-") for name in preprocessor.classes):
            return "entities are scored as a whole"
        return None

    def padded_arrays(self, examples: LabeledSequences) -> tuple[np.ndarray, ...]:
        """Readings as arrays.

        Returns:
            `x`, padded to the longest sequence; class ids; which steps are real; and the length
            that the batch of each row has if the row is alone in it.
        """
        batches = self.preprocessor.batches(examples, batch_size=len(examples), shuffle=False)
        (x, y, *_) = batches[0]
        order = np.argsort(np.argsort(examples.lengths, kind="stable"), kind="stable")
        real = np.arange(x.shape[1]) < examples.lengths[:, None]
        lengths = -(-examples.lengths // MULTIPLE) * MULTIPLE
        return x[order], np.asarray(y[order], np.int32), real, lengths.astype(np.int32)

    def batch_order(self, *, batch_size: int, seed: int) -> Iterator[np.ndarray]:
        """The batches of similar lengths of each epoch."""
        lengths = self.training.lengths
        return (
            full_batches(bucketed_batches(lengths, batch_size, seed, epoch, self._pool))
            for epoch in itertools.count()
        )

    # Results.

    def evaluate(
        self, model: keras.Model, x: Any, y: Any = None, *, batch_size: int | None = None
    ) -> LabelScores:
        """Scores of an end-to-end model on labeled sequences.

        Args:
            model: what `train`, `search` or `load` returned.
            x: `LabeledSequences`, or a path.
            y: None.
            batch_size: int, at least 1.
        """
        x, y = self._loaded(x, y)
        if not isinstance(x, LabeledSequences) or y is not None:
            expected = f"LabeledSequences, as {model.name!r} was trained on"
            raise ArgumentError(argument_message("x", expected, type(x).__name__))
        metrics = SequenceMetrics(
            self.preprocessor, x, batch_size=64 if batch_size is None else batch_size
        )
        return metrics.measure(self.inner(model))

    def validation_scores(self, model: keras.Model) -> LabelScores:
        """Scores on the validation sequences."""
        return SequenceMetrics(self.preprocessor, self.validation).measure(self.inner(model))

    def sequence_leakage(self, model: keras.Model) -> SequenceLeakage | None:
        """State leakage and look-ahead on the training sequences; None where all are too short."""
        return self._leakage(model, self.training)

    def _leakage(self, model: keras.Model, examples: LabeledSequences) -> SequenceLeakage | None:
        try:
            return measure_sequence_leakage(self.inner(model), self.preprocessor, examples)
        except DataError:  # no two sequences of two steps
            return None

    def predictions(
        self,
        model: keras.Model,
        path: Path | None,
        lines: Iterable[list[str]],
        options: ReadingOptions,
    ) -> Iterator[str]:
        """A line per token with its tag, or per sentence with its label."""
        if self.preprocessor.tokens is None:
            raise ArgumentError(
                f"`predict` must have a model of sentences, or of one time series. Received: "
                f"{model.name!r}, a model of many sequences of readings. Use `evaluate`, or Python."
            )
        for sentences in lines:
            outputs = predict_strings(model, sentences)
            for row, sentence in enumerate(sentences):
                if self.target == "labels":
                    label = outputs["labels"][row].decode("utf-8")
                    yield f"{label}\t{outputs['probabilities'][row].max():.4f}\t{sentence}"
                    continue
                tokens = sentence.split()
                for token, tag in zip(tokens, outputs["tags"][row][: len(tokens)], strict=True):
                    yield f"{token}\t{tag.decode('utf-8')}"
                yield ""

    def report_sections(self, search: Any, scores: Mapping[str, Any]) -> list[Section]:
        """State leakage and look-ahead, the confusion matrix, scores by class."""
        from matplotlib.figure import Figure as Plot

        validation = scores["validation"]
        confusion = Plot(figsize=(9, 8), layout="constrained")
        validation.plot(confusion.add_subplot())
        sections = [
            Section("Confusion matrix", "Rows are true classes, shaded by row.", (confusion,)),
            Section(
                "Scores by class",
                table=validation.table.to_html(float_format="{:.3f}".format, border=0),
            ),
        ]
        leakage = self._leakage(search.best_model, self.validation)
        if leakage is not None:
            text = (
                f"{leakage} The curves show how much the output depends on earlier or later steps "
                "when the nearest k steps are kept."
            )
            figure = leakage.plot().figure
            sections.insert(0, Section("State leakage and look-ahead", text, (figure,)))
        return sections

    def glossary(self) -> list[str]:
        """F1 and memory horizon."""
        return [
            "<b>F1</b>: of whole entities for BIO tags, otherwise the mean over classes.",
            "<b>Memory horizon</b>: number of nearest steps from which on exchanging the other "
            "steps for those of another sequence changes the probabilities by less than the "
            "threshold, as a share of twice their variance.",
        ]


def _sequences_of_arrays(
    target: str, name: str, y_name: str, x: Any, y: Any, mask_value: float | None
) -> tuple[LabeledSequences, int | None]:
    """The real steps of arrays, and the highest class if classes are ids."""
    x = as_array(name, x)
    if x.ndim != 3 or x.dtype.kind not in "iuf":
        raise DataError(
            f"`{name}` must be readings of shape (batch, time, features), or "
            f"keras_seqzoo.data.LabeledSequences, which hold texts too. Received: shape {x.shape}, "
            f"dtype {x.dtype}."
        )
    if y is None:
        raise ArgumentError(
            f"`{y_name}` must be given: the {target} of each "
            f"{'row' if target == 'labels' else 'step'}. Received: None."
        )
    y = as_array(y_name, y)
    y = np.array(y.tolist()) if y.dtype.kind == "O" else y  # ids or names, as they are
    expected = x.shape[:1] if target == "labels" else x.shape[:2]
    if y.shape != expected or y.dtype.kind not in "iuU":
        raise DataError(
            f"`{y_name}` must be ids or names of classes, of shape {expected}. Received: shape "
            f"{y.shape}, dtype {y.dtype}."
        )
    real = np.ones(x.shape[:2], bool)
    if mask_value is not None:
        padding = np.isnan(x) if np.isnan(mask_value) else x == mask_value
        real = ~padding.all(axis=-1)
    if not real.any(axis=1).all():
        raise DataError(
            f"`{name}` must have a real step in every row. Received: row "
            f"{np.argmin(real.any(axis=1))} with padding alone. Leave it out."
        )
    if not np.isfinite(x[real]).all():
        raise DataError(
            f"`{name}` must be finite in its real steps. Received: NaN or infinity. Mark padding "
            "with mask_value=, or leave those rows out."
        )
    classes = y if target == "labels" else y[real]
    highest = None if y.dtype.kind == "U" else int(classes.max())
    if highest is not None and classes.min() < 0:
        raise DataError(f"`{y_name}` must be classes from 0 on. Received: {classes.min()}.")
    sequences = [row[steps] for row, steps in zip(x, real, strict=True)]
    if target == "labels":
        return LabeledSequences(sequences, labels=y.astype(str).tolist()), highest
    tags = [row[steps].astype(str).tolist() for row, steps in zip(y, real, strict=True)]
    return LabeledSequences(sequences, tags=tags), highest
