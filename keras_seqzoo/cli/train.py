"""`keras-seqzoo train`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from keras_seqzoo import exporting, metrics, registry, tasks
from keras_seqzoo.cli import options
from keras_seqzoo.cli.quiet import load_tensorflow
from keras_seqzoo.errors import ArgumentError
from keras_seqzoo.utils import files

BEST, SAVED_MODEL, FIGURES, HISTORY = "best.keras", "saved_model", "figures.json", "history.csv"


@click.command("train")
@click.argument("name")
@click.option("--data", type=click.Path(path_type=Path), required=True,
              help="A folder with seq.in, seq.out or label; .conllu, .conll, .csv, .tsv, .ts; "
              "source and target with a tab between them; or readings.")  # fmt: skip
@click.option("--validation-data", "validation", type=click.Path(path_type=Path),
              help="To choose the best epoch by; default a part of --data.")  # fmt: skip
@click.option("--test", type=click.Path(path_type=Path), help="To be measured once.")
@options.examples
@options.pairs
@options.reading
@click.option("--epochs", type=int, default=30, show_default=True, help="At most so many.")
@click.option("--batch-size", type=int, default=32, show_default=True)
@click.option("--learning-rate", type=float, help="Default: that of the card.")
@click.option("--class-weight", type=click.Choice(["balanced"]), help="Let each class count alike.")
@click.option("--set", "fixed", multiple=True, metavar="NAME=VALUE", help="Set an argument.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Where it goes; default runs/NAME.")
@click.option("--overwrite", is_flag=True, help="Replace what is at --out.")
@click.option("--no-export", is_flag=True, help="Write no SavedModel.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors.")
def command(
    name, data, validation, test, format, source_units, target_units, steps, columns, missing,
    sequence_length, sequence_stride, epochs, batch_size, learning_rate, class_weight, fixed, seed, out, overwrite,
    no_export, quiet,
) -> None:  # fmt: skip
    """Train model NAME on labeled or tagged sequences, on pairs of them, or on readings.

    Ends with best.keras, which takes sentences (or readings) and gives names, a SavedModel that
    does so without keras, and its scores, in --out.
    """
    entry = registry.get_entry(name)
    out = out or Path("runs") / name
    files.refuse_existing(out, overwrite=overwrite)
    given = {"epochs": epochs, "batch_size": batch_size, "seed": seed, "verbose": int(not quiet)}
    given |= {"learning_rate": learning_rate, **dict(map(options.assignment, fixed))}
    if entry.task == "seq2seq":
        how = {"columns": columns, "missing": missing, "sequence_length": sequence_length, "sequence_stride": sequence_stride,
               "source_units": source_units, "target_units": target_units, "steps": steps,
               "quiet": quiet}  # fmt: skip
        if validation is None:
            sets = [
                *options.split_pairs(data, (0.9, 0.1), **how),
                options.read_seq_in_out(test, **how),
            ]
        else:
            sets = [options.read_seq_in_out(path, **how) for path in (data, validation, test)]
        load_tensorflow()
        found = _train_on_pairs(name, sets, **given)
    elif entry.target is not None:
        sets = [
            options.read_labeled_sequences(path, format, quiet) for path in (data, validation, test)
        ]
        load_tensorflow()
        found = _train_on_examples(name, sets, class_weight=class_weight, **given)
    else:
        if class_weight is not None:
            raise ArgumentError(f"`--class-weight` must be left out for {name}, without classes.")
        sets = [
            path and options.read(path, columns, missing, quiet=quiet)
            for path in (data, validation, test)
        ]
        load_tensorflow()
        found = _train_on_readings(name, sets, sequence_length, sequence_stride, **given)
    model, figures, figure, history, said = found
    with files.replacing_folder(out, overwrite=overwrite) as folder:
        model.save(folder / BEST)
        if not no_export:
            exporting.export(model, folder / SAVED_MODEL, verbose=0)
        files.write_text(folder / FIGURES, json.dumps(figures, indent=2) + "\n")
        files.write_text(folder / HISTORY, history.to_csv())
        for file, draw in figure.items():
            draw().figure.savefig(folder / file, bbox_inches="tight")
    if not quiet:
        for line in said:
            click.echo(line)
        click.echo(f"Written: {files.display_path(out)}")


def _train_on_examples(name, sets, **given):

    examples, validation, test = sets
    trained = tasks.train(name, examples, validation, **given)
    figures = {"seconds": trained.seconds, "validation": trained.scores.to_dict()}
    said = [f"Validation: {trained.scores}"]
    scores = trained.scores
    if test is not None:
        scores = tasks.evaluate(trained.model, test)
        figures["test"] = scores.to_dict()
        said.append(f"Test, measured once: {scores}")
    memory = tasks.measure_memory(trained.network, trained.preprocessor, examples)
    figures["memory"] = memory.to_dict()
    said.append(str(memory))
    drawn = {"confusion.png": scores.plot, "memory.png": memory.past.plot}
    return trained.model, figures, drawn, trained.history, said


def _train_on_pairs(name, sets, **given):

    pairs, validation, test = sets
    trained = tasks.train(name, pairs, validation, **given)
    scores = tasks.evaluate(trained.model, validation)
    figures = {"seconds": trained.seconds, "validation": _plain(scores)}
    said = [f"Validation: {_said(scores)}"]
    if test is not None:
        scores = tasks.evaluate(trained.model, test)
        figures["test"] = _plain(scores)
        said.append(f"Test, measured once: {_said(scores)}")
    drawn = {"accuracy.png": scores.plot} if trained.preprocessor.generates_tokens else {}
    return trained.model, figures, drawn, trained.history, said


def _plain(scores):
    return {"error": scores} if isinstance(scores, float) else scores.to_dict()


def _said(scores) -> str:
    return f"error {scores:.3g} of the variance." if isinstance(scores, float) else str(scores)


def _train_on_readings(name, sets, sequence_length, sequence_stride, **given):
    from keras_seqzoo import data

    readings, validation, test = sets
    if validation is None:
        readings, validation = readings.split(0.8, 0.2)
    x = data.make_windows(
        readings,
        sequence_length=sequence_length,
        sequence_stride=sequence_stride or max(sequence_length // 2, 1),
    )
    trained = tasks.train_on_windows(
        name, x, data.make_windows(validation, sequence_length=sequence_length), **given
    )
    figures = {
        "seconds": trained.seconds,
        "validation": {"error": trained.error, "leakage": trained.leakage.to_dict()},
    }
    said = [f"Validation: error {trained.error:.3g} of the variance. {trained.leakage}"]
    if test is not None:
        task = registry.get_entry(name).task
        last = len(trained.model.output_shape) == 2
        given_test, target = tasks.targets(
            task, data.make_windows(test, sequence_length=sequence_length), last=last
        )
        error = metrics.identity_error(trained.model, given_test, target)
        figures["test"] = {"error": error}
        said.append(f"Test, measured once: error {error:.3g} of the variance.")
    return trained.model, figures, {"memory.png": trained.leakage.plot}, trained.history, said
