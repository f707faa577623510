"""`keras-seqzoo search`."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

import click

from keras_seqzoo import exporting, registry
from keras_seqzoo.cli import options
from keras_seqzoo.cli.quiet import load_tensorflow
from keras_seqzoo.errors import ArgumentError, DataError, UnknownArgumentError
from keras_seqzoo.utils import files
from keras_seqzoo.utils.argument_validation import argument_message, unknown_name_message

SAVED_MODEL = "saved_model"
_BUILT_IN_STEPS = 12_000


@click.command("search")
@click.argument("name")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help=".csv, .tsv, .parquet or .npy; default generated readings of a machine. For classifiers "
    "and taggers what `train` takes.",
)
@click.option("--validation-data", "validation", type=click.Path(path_type=Path),
              help="Examples to choose by; default a part of --data.")  # fmt: skip
@click.option("--test", type=click.Path(path_type=Path),
              help="Examples to be measured once; default a part of --data.")  # fmt: skip
@options.examples
@options.pairs
@options.reading
@click.option(
    "--split",
    default="60/20/20",
    show_default=True,
    help="Percent to train on, to choose by and to measure once; readings in time order.",
)
@click.option("--max-trials", type=int, default=30, show_default=True)
@click.option("--epochs", type=int, default=30, show_default=True, help="Per trial.")
@click.option("--batch-size", type=int, default=32, show_default=True)
@click.option("--population", type=int, default=16, show_default=True,
              help="Trials that are proposed at once and trained together.")  # fmt: skip
@click.option("--pruning", is_flag=True, help="End trials early that are clearly behind.")
@click.option("--sampler", type=click.Choice(["tpe", "random", "nsga2"]), default="tpe",
              show_default=True)  # fmt: skip
@click.option("--max-leakage", type=float, help="Choose the least error within this leakage.")
@click.option("--max-error", type=float, help="Choose the least leakage within this error.")
@click.option("--set", "fixed", multiple=True, metavar="NAME=VALUE", help="Fix an argument.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option(
    "--directory", type=click.Path(path_type=Path), help="Where it goes; default runs/NAME."
)
@click.option("--storage", metavar="URL", help="Database, such as postgresql://user@host/base, in "
              "which all who give the same command work on one search.")  # fmt: skip
@click.option("--overwrite", is_flag=True, help="Start over instead of resuming.")
@click.option("--no-export", is_flag=True, help="Write no SavedModel.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors.")
def command(
    name, data, validation, test, format, source_units, target_units, steps, columns, missing,
    sequence_length, sequence_stride, split, max_trials, epochs, batch_size, population, pruning, sampler,
    max_leakage, max_error, fixed, seed, directory, storage, overwrite, no_export, quiet,
) -> None:  # fmt: skip
    """Tune model NAME on a record of readings, on labeled or tagged sequences, or on pairs.

    Ends with best.keras, a SavedModel that runs without keras, and report.html in the directory.
    The same command again resumes an interrupted search.
    """
    entry = registry.get_entry(name)
    fractions = _fractions(split)
    arguments = dict(options.assignment(text) for text in fixed)
    directory = directory or Path("runs") / name
    if entry.task == "seq2seq":
        how = {"columns": columns, "missing": missing, "sequence_length": sequence_length, "sequence_stride": sequence_stride,
               "source_units": source_units, "target_units": target_units, "steps": steps,
               "quiet": quiet}  # fmt: skip
        found = _on_pairs(data, validation, test, fractions, how)
    elif entry.target is not None:
        found = _on_examples(data, validation, test, format, fractions, seed, quiet)
    elif validation is not None or test is not None or format is not None:
        raise ArgumentError(
            f"`--validation-data`, `--test` and `--format` must be left out for {name}, which takes "
            "readings. Use --split."
        )
    else:
        readings = _readings(data, columns, missing, seed, quiet)
        found = _on_readings(
            entry.task, readings, fractions, sequence_length, sequence_stride, quiet
        )
    train, beside, measure, say, details = found
    load_tensorflow()
    known = {key for key in (*entry.arguments(), *entry.space) if key != "name"}
    for key in arguments:
        if key not in known:
            raise UnknownArgumentError(
                unknown_name_message(f"argument of {name}:", key, sorted(known))
            )
    from keras_seqzoo import tuning

    found = tuning.search(
        name,
        train,
        validation_data=beside,
        max_trials=max_trials,
        epochs=epochs,
        batch_size=batch_size,
        population=population,
        pruning=pruning,
        storage=storage,
        sampler=sampler,
        directory=directory,
        overwrite=overwrite,
        seed=seed,
        max_leakage=max_leakage,
        max_error=max_error,
        report=False,
        verbose=int(not quiet),
        **arguments,
    )
    model = found.best_model
    measured = measure(model)
    exported = None if no_export else directory / SAVED_MODEL
    with found.once("report and export") as mine:
        if mine:
            found.write_report(
                measured={"test": measured},
                command=shlex.join(["keras-seqzoo", *sys.argv[1:]]),
                **details,
            )
            if overwrite:  # what the old search left is not this model
                shutil.rmtree(directory / SAVED_MODEL, ignore_errors=True)
            if exported is not None:
                exporting.export(model, exported, overwrite=True, verbose=0)
    if not quiet:
        _say(found, say(found, measured), exported)


def _on_readings(task: str, readings, fractions, sequence_length, sequence_stride, quiet):
    """Windows to train on and to choose by, and how the model is measured and spoken of."""
    train, validation, test = _windows(readings, fractions, sequence_length, sequence_stride)
    if not quiet:
        click.echo(
            f"Windows of {sequence_length} steps: {len(train)} to train, {len(validation)} to choose by, "
            f"{len(test)} to measure once."
        )

    def measure(model):
        from keras_seqzoo.tasks import targets
        from keras_seqzoo.tuning.report.page import measure

        if task != "forecasting":
            return measure(model, test, train)
        x, y = targets(task, test)
        return measure(model, x, train, y=y)

    details = {"columns": list(readings.columns), "notes": readings.notes}
    return train, validation, measure, _leakage_table, details


def _on_examples(data, validation, test, format, fractions, seed, quiet):
    """The same for labeled or tagged sequences."""
    if data is None:
        raise ArgumentError(argument_message("data", "given for a classifier or tagger", None))
    train = options.read_labeled_sequences(data, format, quiet)
    validation = options.read_labeled_sequences(validation, format, quiet)
    test = options.read_labeled_sequences(test, format, quiet)
    if test is None:
        train, test = train.split(fractions[2], seed=seed)
    if validation is None:
        train, validation = train.split(fractions[1] / (fractions[0] + fractions[1]), seed=seed)

    def measure(model):
        from keras_seqzoo.tasks import evaluate

        return evaluate(model, test)

    return train, validation, measure, _score_table, {"notes": train.notes}


def _on_pairs(data, validation, test, fractions, how):
    """The same for pairs; a part that is not given comes from the end of the data, or at random."""
    if data is None:
        raise ArgumentError(argument_message("data", "given for an encoder-decoder", None))
    if (validation is None) != (test is None):
        raise ArgumentError("`--validation-data` and `--test` must both be given, or neither.")
    if validation is None:
        train, validation, test = options.split_pairs(data, fractions, **how)
    else:
        train, validation, test = (
            options.read_seq_in_out(path, **how) for path in (data, validation, test)
        )

    def measure(model):
        from keras_seqzoo.tasks import evaluate

        return evaluate(model, test)

    return train, validation, measure, _pair_table, {}


def _readings(path: Path | None, columns: str | None, missing: str, seed: int, quiet: bool):
    if path is not None:
        return options.read(path, columns, missing, quiet=quiet)
    from keras_seqzoo import data

    if columns is not None:
        raise ArgumentError(argument_message("columns", "given together with --data", columns))
    readings = data.synthetic_readings(steps=_BUILT_IN_STEPS, seed=seed)
    if not quiet:
        click.echo(
            f"{len(readings)} generated readings of {', '.join(readings.columns)} (--data FILE for "
            "your own)."
        )
        for note in readings.notes:
            click.echo(f"  {note}")
    return readings


def _windows(readings, fractions: list[float], sequence_length: int, sequence_stride: int | None):
    """Windows of each part, cut after the split: no window is on both sides of it.

    Training windows overlap by half unless told otherwise; the others do not, so that their rows
    can take one another's past.
    """
    from keras_seqzoo import data

    strides = (
        max(sequence_length // 2, 1) if sequence_stride is None else sequence_stride,
        sequence_length,
        sequence_length,
    )
    parts = readings.split(*fractions)
    rows = [
        data.make_windows(part, sequence_length=sequence_length, sequence_stride=step)
        for part, step in zip(parts, strides, strict=True)
    ]
    for what, part in zip(("train on", "choose by", "measure"), rows, strict=True):
        if len(part) < 2 or (part == part[:1, :1]).all():
            raise DataError(
                f"The part to {what} must have at least 2 windows that vary. Received: "
                f"{len(part)}. Use shorter windows (--sequence-length), another --split or a longer record."
            )
    return rows


def _fractions(split: str) -> list[float]:
    try:
        parts = [float(part) for part in split.split("/")]
    except ValueError:
        parts = []
    if len(parts) != 3 or min(parts) <= 0 or abs(sum(parts) - 100) > 1e-6:
        raise ArgumentError(argument_message("split", "three percentages such as 60/20/20", split))
    return [part / 100 for part in parts]


def _say(found, table, exported: Path | None) -> None:
    from rich.console import Console

    from keras_seqzoo.tuning.tuner import BEST, REPORT

    console = Console()
    console.print(table)
    chosen = found.chosen
    values = ", ".join(
        f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}"
        for key, value in chosen.hyperparameters.values.items()
    )
    console.print(f"Trial {int(chosen.trial_id)}: {values}", highlight=False)
    console.print(f"Model:      {files.display_path(found.path / BEST)}", highlight=False)
    if exported is not None:
        console.print(
            f"SavedModel: {files.display_path(exported)} (verified without keras)", highlight=False
        )
    console.print(f"Report:     {files.display_path(found.path / REPORT)}", highlight=False)


def _table(found, headings):
    from rich.table import Table

    table = Table(title=f"Best of {len(found.results)} trials")
    for heading in ("", *headings):
        table.add_column(heading, justify="right" if heading else "left")
    return table


def _leakage_table(found, measured):
    from keras_seqzoo.tuning import results

    table = _table(found, ("identity error", "state leakage", "interval (95 %)"))
    chosen = found.chosen
    table.add_row(
        "validation",
        f"{results.value(chosen, results.ERROR):.2g}",
        f"{results.value(chosen, results.LEAKAGE):.2g}",
        "",
    )
    for label, error, leakage in (
        ("test, measured once", f"{measured.error:.2g}", measured.leakage),
        ("anomaly score on test", "", measured.score_leakage),
    ):
        if leakage is not None:
            low, high = leakage.interval
            table.add_row(label, error, f"{leakage.index:.2g}", f"{low:.2g} to {high:.2g}")
    return table


def _score_table(found, measured):
    from keras_seqzoo.tuning import results

    names = ("f1", "precision", "recall", "accuracy")
    table = _table(found, names)
    figures = [results.value(found.chosen, f"val_{name}") for name in names]
    table.add_row("validation", *(f"{figure:.4f}" for figure in figures))
    table.add_row("test, measured once", *(f"{getattr(measured, name):.4f}" for name in names))
    return table


def _pair_table(found, measured):
    from keras_seqzoo.tuning import results

    if isinstance(measured, float):
        table = _table(found, ("error of readings said freely, over their variance",))
        table.add_row("validation", f"{results.value(found.chosen, 'val_error'):.4g}")
        table.add_row("test, measured once", f"{measured:.4g}")
        return table
    names = ("accuracy", "token_error_rate")
    table = _table(found, ("right as a whole", "token error rate"))
    figures = [results.value(found.chosen, f"val_{name}") for name in names]
    table.add_row("validation, greedy", *(f"{figure:.4f}" for figure in figures))
    figures = [getattr(measured, name) for name in names]
    table.add_row("test, measured once, by a beam", *(f"{figure:.4f}" for figure in figures))
    return table
