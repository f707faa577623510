"""`search`: hyperparameter search of a registered model."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import keras_tuner

from keras_seqzoo.tasks import task_for
from keras_seqzoo.tuning.hypermodel import ZooHyperModel, split_fixed
from keras_seqzoo.tuning.report.page import write_report
from keras_seqzoo.tuning.tuner import Search
from keras_seqzoo.utils.argument_validation import check_positive, check_seed, check_verbose


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
    """Search the hyperparameters of an entry, and return the search with its best trained model.

    The directory then holds `best.keras` (for `keras_seqzoo.load`), `report.html`, and `study.db`,
    an Optuna study with every trial. The same call resumes an interrupted search, whose results
    are then those of an uninterrupted search. With a higher `max_trials` it adds trials.

    Shapes: windows are `(windows, time, features)`, in time order. With overlapping windows give
        `validation_data`, so that no reading is on both sides.
    Masking: steps that the model's `mask_value` marks are not scored.
    State: random generators, Keras's and TensorFlow's included, and the dtype policy are restored.

    Args:
        name: str, one of `list_models()`.
        x: training data, as in `keras_seqzoo.train`. The best model of labeled sequences or pairs
            is end-to-end.
        y: targets of windows, as in `keras_seqzoo.train`.
        validation_data: data like `x`, or a pair (x, y); default a part of `x`.
        validation_split: float in (0, 1), fraction of `x` for validation: the last part of a time
            series or of windows, else a random part with the same fraction of every class.
        max_trials: int, number of trials.
        epochs: int, epochs per trial. The score and weights of a trial are those of its best epoch.
        batch_size: int.
        population: int, number of trials that are proposed at once. Trials that differ only in
            weights, units, regularizers, dropout and learning rate train together, which is many
            times faster than one by one. With 1, trials train one by one, and each proposal uses
            all earlier results. Trials also train one by one with `callbacks` other than one
            `EarlyStopping`, with texts, with a CRF or BIO tags, and with encoder-decoders.
        pruning: bool, stop unpromising trials early by successive halving: after a ninth and a
            third of the epochs the best third by the objective continues. It applies only to trials
            that train together.
        objective: key of the logs, a `keras_tuner.Objective`, or a list of them. The default is
            "val_identity_cost" for the identity task, the sum of identity error and state leakage;
            "val_identity_error" for autoencoders and forecasters, which need memory; "val_f1" for
            taggers; "val_accuracy" for classifiers and encoder-decoders of tokens; "val_error" for
            encoder-decoders of readings. Several objectives, such as
            `["val_identity_error", "val_state_leakage"]`, are sampled for their Pareto front.
        sampler: "tpe", "random", "nsga2", or a function from a seed to an Optuna sampler.
        directory: path; default `runs/NAME`.
        storage: str, address of a database such as "postgresql://user@host/base"; default a file
            in the directory. Machines that make the same call work on one study, which is named
            after the last part of `directory`. They must share `directory`, which holds the
            weights. Trials of a worker that died run again in another worker.
        overwrite: bool, start over instead of resuming.
        seed: int, at least 0. The same seed gives the same trials and scores.
        callbacks: Keras callbacks, copied for every trial; `EarlyStopping("val_identity_cost",
            mode="min", patience=5)` monitors an objective.
        hyperparameters: `keras_tuner.HyperParameters` that override dimensions of the search space.
        space: mapping that replaces dimensions of the space, as in `keras_seqzoo.hypermodel`.
        block: int, number of consecutive windows that overlap, as in `keras_seqzoo.leakage`.
        max_leakage: float, choose the trial with the lowest error among those with at most this
            state leakage.
        max_error: float, choose the trial with the lowest state leakage among those with at most
            this error.
        report: bool, write `report.html`.
        verbose: 0 is silent; 1 shows progress.
        **fixed: fixed arguments of the constructor, options of the task (such as
            `sequence_length`), and fixed dimensions of the search space.

    Returns:
        The finished `Search`.

    Raises:
        UnknownNameError, UnknownArgumentError, ArgumentError: for an argument that cannot be used.
        DataError: for data that cannot be used.
        SearchError: if the directory is in use by another process, holds a search with other
            settings or data, or if every trial failed.

    Example:

    >>> import keras_seqzoo as zoo
    >>> x = zoo.data.make_windows(zoo.data.synthetic_readings(steps=400), sequence_length=20)
    >>> search = zoo.search("simple_rnn_identity", x, max_trials=2, epochs=1, verbose=0,
    ...                     directory=tempfile.mkdtemp())
    >>> len(search.results)
    2
    """
    check_seed(seed)
    check_verbose(verbose)
    check_positive(block=block)
    dimensions, constructor = split_fixed(name, fixed)
    task = task_for(name, block=block, **constructor).with_data(
        x, y, validation_data=validation_data, validation_split=validation_split, seed=seed
    )
    model = ZooHyperModel(task, space=space, **dimensions, **constructor)
    search = Search(
        model,
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
    search.search()
    if report:
        with search.writer_lock("report") as is_writer:
            if is_writer:
                write_report(search)
    return search
