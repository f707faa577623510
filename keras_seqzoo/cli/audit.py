"""`keras-seqzoo audit`: checks of a sequence model on data."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from keras_seqzoo.cli import options
from keras_seqzoo.cli.quiet import load_tensorflow
from keras_seqzoo.utils import files


@click.command("audit")
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("file", type=click.Path(path_type=Path))
@options.labeled
@options.reading
@click.option("--causal", is_flag=True, help="Expect that no output depends on later readings.")
@click.option("--max-leakage", type=float,
              help="Expect a state leakage of at most this: the share of the output's variance "
              "that is due to earlier inputs, not train/test data leakage.")  # fmt: skip
@click.option("--max-horizon", type=int, help="Expect a memory horizon of at most so many steps.")
@click.option("--mask-value", type=float, help="Value of padded steps; default that of MODEL.")
@click.option(
    "--sides",
    type=click.Choice(["both", "left", "right"]),
    default="both",
    show_default=True,
    help="Where padding may be.",
)
@click.option("--skip", help="Checks to skip, comma-separated.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--json", "as_json", type=click.Path(path_type=Path),
              help="Write the report as JSON to this file; - prints it.")  # fmt: skip
@click.option("--junit", type=click.Path(path_type=Path), help="Write JUnit XML to this file.")
def command(
    model, file, format, columns, missing, sequence_length, sequence_stride, causal, max_leakage,
    max_horizon, mask_value, sides, skip, seed, as_json, junit,
) -> None:  # fmt: skip
    """Check MODEL on FILE for silent faults of masks, state, causality and batch independence.

    MODEL is a .keras file or a SavedModel folder; FILE is .csv, .tsv, .parquet or .npy. For the
    best.keras of `train` and `search`, FILE is in the format of their data, and the model inside is
    checked. The exit status is 1 if an expectation fails, 2 if the command cannot run.
    """
    to_stdout = str(as_json) == "-"
    load_tensorflow()
    from keras_seqzoo import diagnostics, saving, tasks, wrapping

    loaded = saving.load(model)
    reading: dict[str, Any] = {
        "columns": columns, "missing": missing, "sequence_length": sequence_length,
        "sequence_stride": sequence_stride, "quiet": to_stdout,
    }  # fmt: skip
    audited, block, along = loaded, 1, None
    if wrapping.is_end_to_end(loaded):
        audited = wrapping.inner_model(loaded)
        preprocessor = wrapping.preprocessor_of(loaded)
        task = tasks.task_of_model(loaded)
        how = tasks.ReadingOptions(columns, missing, sequence_length, sequence_stride, format)
        examples: Any = task.prepare(options.read_data(task, file, how, quiet=to_stdout), how)
        x = preprocessor.batches(
            examples, targets=False, shuffle=False, batch_size=len(examples)
        )[0][0]  # fmt: skip
        if wrapping.decodes(loaded):
            along = "target"
            sides = "right" if sides == "both" else sides  # targets are padded on the right only
        elif isinstance(x, dict):
            along = list(x)  # tokens and character ids
    else:
        x, block = options.read_windows(file, **reading)
    report = diagnostics.audit(
        audited, x,
        causal=causal, max_leakage=max_leakage, max_horizon=max_horizon, mask_value=mask_value,
        sides=sides, along=along, skip=[name.strip() for name in skip.split(",")] if skip else (),
        block=block, seed=seed,
    )  # fmt: skip
    click.echo(report.to_json().rstrip() if to_stdout else str(report))
    if as_json is not None and not to_stdout:
        files.write_text(as_json, report.to_json())
    if junit is not None:
        files.write_text(junit, report.to_junit())
    if not report.passed:
        sys.exit(1)
