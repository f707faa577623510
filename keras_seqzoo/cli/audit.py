"""`keras-seqzoo audit`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from keras_seqzoo import files
from keras_seqzoo.cli import options
from keras_seqzoo.cli.quiet import load_tensorflow


@click.command("audit")
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("file", type=click.Path(path_type=Path))
@options.reading
@click.option("--causal", is_flag=True, help="Expect that no output depends on later readings.")
@click.option("--max-leakage", type=float, help="Expect a state leakage of at most this.")
@click.option("--max-horizon", type=int, help="Expect a memory horizon of at most so many steps.")
@click.option("--mask-value", type=float, help="What fills padded steps; default as MODEL says.")
@click.option(
    "--sides",
    type=click.Choice(["both", "left", "right"]),
    default="both",
    show_default=True,
    help="Where padding may be.",
)
@click.option("--skip", help="Checks to leave out, comma-separated.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option(
    "--json", "as_json", type=click.Path(path_type=Path), help="Write the report here; - prints it."
)
@click.option("--junit", type=click.Path(path_type=Path), help="Write JUnit's XML here.")
def command(
    model, file, columns, missing, window, stride, causal, max_leakage, max_horizon, mask_value,
    sides, skip, seed, as_json, junit,
) -> None:  # fmt: skip
    """Check MODEL on readings of FILE for what goes wrong with sequence models, in silence.

    MODEL is a .keras file or a SavedModel folder; FILE is .csv, .tsv, .parquet or .npy. The exit
    status is 1 if an expectation fails, 2 if the command cannot be carried out.
    """
    to_stdout = str(as_json) == "-"
    readings = options.read(file, columns, missing, quiet=to_stdout)
    load_tensorflow()
    from keras_seqzoo import artifacts, data, diagnostics

    report = diagnostics.audit(
        artifacts.load(model),
        data.windows(readings, length=window, stride=stride),
        causal=causal, max_leakage=max_leakage, max_horizon=max_horizon, mask_value=mask_value,
        sides=sides, skip=[one.strip() for one in skip.split(",")] if skip else (),
        block=1 if stride is None else -(-window // stride), seed=seed,
    )  # fmt: skip
    click.echo(report.to_json().rstrip() if to_stdout else str(report))
    if as_json is not None and not to_stdout:
        files.write_text(as_json, report.to_json())
    if junit is not None:
        files.write_text(junit, report.to_junit())
    if not report.passed:
        sys.exit(1)
