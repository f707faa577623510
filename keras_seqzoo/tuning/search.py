"""The one call: rows in, a tuned model, its figures and a report out."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import keras_tuner

from keras_seqzoo import errors, registry
from keras_seqzoo.data import LabeledSequences, SequencePairs, SequencePreprocessor
from keras_seqzoo.tasks import targets
from keras_seqzoo.tuning.hypermodel import ZooHyperModel
from keras_seqzoo.tuning.pairs import PairHyperModel, PairRows, pair_rows
from keras_seqzoo.tuning.rows import split_rows
from keras_seqzoo.tuning.sequences import SequenceHyperModel, array_rows, sequence_rows
from keras_seqzoo.tuning.tuner import Search
from keras_seqzoo.utils.argument_validation import argument_message, check_seed, check_verbose
from keras_seqzoo.utils.array_validation import as_array


def search(
    name: str,
    x: Any,
    y: Any = None,
    *,
    validation_data: Any = None,
    validation_split: float = 0.25,
    max_trials: int = 32,
    epochs: int = 30,
    batch_size: int = 32,
    population: int = 16,
    pruning: bool = False,
    objective: Any = None,
    sampler: Any = "tpe",
    directory: str | os.PathLike | None = None,
    storage: str | None = None,
    overwrite: bool = False,
    seed: int = 0,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    hyperparameters: keras_tuner.HyperParameters | None = None,
    space: Mapping[str, Any] | None = None,
    block: int = 1,
    max_leakage: float | None = None,
    max_error: float | None = None,
    report: bool = True,
    verbose: int = 1,
    **fixed: Any,
) -> Search:
    """Searches an entry's space for the model that gives the input back and leaks the least.

    The directory then holds `best.keras` (what `keras_seqzoo.load` reads), `report.html`, and
    `study.db`, an Optuna study with every trial. The same call again resumes an interrupted search
    and ends where an uninterrupted one ends; with a higher `max_trials` it goes on.

    Shapes: `x` is `(batch, time, features)`, windows in time order; `keras_seqzoo.data.make_windows` cuts
        them. With overlapping windows give `validation_data`, so that no reading is on both sides.
    Masking: what the model's `mask_value` marks counts nowhere.
    State: random generators, Keras's and TensorFlow's included, and the dtype policy are as before.

    Args:
        name: str, one of `list_models()`.
        x: training rows, and validation rows at their end unless `validation_data` is given; or
            `keras_seqzoo.data.LabeledSequences` for a classifier or tagger, `SequencePairs` for an
            encoder-decoder, whose `best_model` then takes and gives names.
        y: targets; default the input itself, and for a forecaster each step's next reading, for
            which the last step of every window is taken away. Of a classifier or tagger the
            classes, `(batch,)` or `(batch, time)`: numbers from 0 on, or names, which `best_model`
            then gives.
        validation_data: array, or pair `(x, y)`, or `LabeledSequences`, or `SequencePairs`.
        validation_split: float in (0, 1), the share of the last rows to validate on; for a
            classifier or tagger it is drawn at random, as much of every class.
        max_trials: int, trials in all.
        epochs: int, per trial. A trial's score and weights are those of its best epoch.
        batch_size: int.
        population: int, trials that are proposed at once and, where nothing but weights, units,
            regularizers, dropout and learning rate tells them apart, trained together: many times
            faster than one by one. 1 trains one by one, and lets every proposal know all results
            so far. One by one train, too, a search with other `callbacks` than one
            `EarlyStopping`, and what has texts, a CRF or entities to score, or decodes.
        pruning: bool, end trials early that are clearly behind, by successive halving: after a
            ninth and a third of the epochs the best third goes on, by the objective, and others
            take the places. Only where trials train together.
        objective: name of a key of the logs, a `keras_tuner.Objective`, or a list of them. The
            default of the identity family, the identity cost, is the sum of identity error and
            state leakage; of autoencoders and forecasters, which are to remember, it is
            "val_identity_error"; of taggers it is "val_f1", of classifiers and encoder-decoders
            "val_accuracy", of those that say readings "val_error". Two,
            `["val_identity_error", "val_state_leakage"]`, are sampled for their Pareto front.
        sampler: "tpe", "random", "nsga2", or a function from a seed to an Optuna sampler.
        directory: path; default `runs/NAME`.
        storage: str, address of a database, such as "postgresql://user@host/base", in which any
            number of machines that make the same call work on one study, called as the last part
            of `directory`; default a file in the directory. `directory` must be one that all
            share: it holds the weights. What a worker held that died is run by another.
        overwrite: bool, start over instead of resuming.
        seed: int, at least 0. The same seed gives the same trials and scores.
        callbacks: Keras callbacks, copied for every trial; `EarlyStopping("val_identity_cost",
            mode="min", patience=5)` sees the objectives.
        hyperparameters: `keras_tuner.HyperParameters` that override dimensions of the space.
        space: mapping that replaces dimensions, as in `keras_seqzoo.hypermodel`.
        block: int, windows that overlap one another, for `keras_seqzoo.leakage`.
        max_leakage: float, choose the trial with the least error within this leakage.
        max_error: float, choose the trial with the least leakage within this error.
        report: bool, write `report.html`.
        verbose: 0 is quiet; 1 shows progress.
        **fixed: arguments of the constructor, and dimensions of the space, that do not vary.

    Returns:
        A `Search`, which has run.

    Raises:
        UnknownNameError, UnknownArgumentError, ArgumentError: for an argument that cannot be used.
        DataError: for rows that cannot be used.
        SearchError: if the directory is in use by another process, holds a search with other
            settings or data, or if every trial failed.

    Example:

    >>> import keras_seqzoo as zoo
    >>> x = zoo.data.make_windows(zoo.data.synthetic_readings(steps=400), sequence_length=20)
    >>> found = zoo.search("simple_rnn_identity", x, max_trials=2, epochs=1, verbose=0,
    ...                    directory=tempfile.mkdtemp())
    >>> len(found.results)
    2
    """
    check_seed(seed)
    check_verbose(verbose)
    masked = {"mask_value": fixed["mask_value"]} if "mask_value" in fixed else {}
    if isinstance(x, SequencePairs) or registry.get_entry(name).task == "seq2seq":
        rows = _pairs(name, x, validation_data, validation_split, seed, **masked)
        model = PairHyperModel(name, preprocessor=rows.preprocessor, space=space, **fixed)
    elif isinstance(x, LabeledSequences) or registry.get_entry(name).target is not None:
        split = validation_data, validation_split, seed
        if isinstance(x, LabeledSequences):
            rows = sequence_rows(name, x, *split, **masked)
        else:
            rows = array_rows(name, x, y, *split, classes=fixed.get("classes"), **masked)
        _check_fixed(fixed, rows.preprocessor)
        model = SequenceHyperModel(
            name, preprocessor=rows.preprocessor, named=rows.named, space=space, **fixed
        )
    else:
        if registry.get_entry(name).task == "forecasting" and y is None:
            x, y, validation_data = _with_the_next(x, validation_data)
        split = 0 if validation_data is not None else validation_split
        rows = split_rows(x, y, validation_data, split)
        if "features" in registry.get_entry(name).arguments():
            fixed = {"features": rows.x.shape[-1]} | fixed
        model = ZooHyperModel(name, space=space, block=block, **fixed)
    made = Search(
        model,
        rows,
        objective=model.objective if objective is None else objective,
        max_trials=max_trials,
        epochs=epochs,
        batch_size=batch_size,
        population=population,
        pruning=pruning,
        storage=storage,
        sampler=sampler,
        directory=Path("runs") / name if directory is None else directory,
        overwrite=overwrite,
        seed=seed,
        callbacks=callbacks,
        hyperparameters=hyperparameters,
        budget={"max_leakage": max_leakage, "max_error": max_error},
        verbose=verbose,
    )
    made.search()
    if report:
        with made.once("report") as mine:
            if mine:
                made.write_report()
    return made


def _pairs(name: str, x: Any, *split: Any, **masked: Any) -> PairRows:
    if not isinstance(x, SequencePairs):
        hint = "`keras_seqzoo.data.forecasting_pairs` makes them of readings."
        raise errors.ArgumentError(argument_message("x", "SequencePairs", type(x), hint))
    return pair_rows(name, x, *split, **masked)


def _check_fixed(fixed: Mapping[str, Any], preprocessor: SequencePreprocessor) -> None:
    """What is said beforehand of a classifier or tagger must be what the data says."""
    if fixed.get("time") is not None:
        hint = "Sequences have lengths of their own."
        raise errors.ArgumentError(
            argument_message("time", "None to search for classes", fixed["time"], hint)
        )
    count = len(preprocessor.classes)
    if fixed.get("classes", count) != count:
        raise errors.ArgumentError(
            argument_message("classes", f"{count}, as there are in the data", fixed["classes"])
        )


def _with_the_next(x: Any, validation_data: Any) -> tuple[Any, Any, Any]:
    """Windows, targets and validation data of a forecaster, from windows alone."""
    x, y = targets("forecasting", as_array("x", x))
    if hasattr(validation_data, "shape"):
        validation_data = targets("forecasting", validation_data)
    return x, y, validation_data
