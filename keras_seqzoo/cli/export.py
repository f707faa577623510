"""`keras-seqzoo export`."""

from __future__ import annotations

from pathlib import Path

import click

from keras_seqzoo.cli.quiet import load_tensorflow


@click.command("export")
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "form",
    type=click.Choice(["tf_saved_model", "onnx", "litert", "openvino", "torch"]),
    default="tf_saved_model",
    show_default=True,
    help="What serves it.",
)
@click.option("--overwrite", is_flag=True, help="Replace what is at OUT, at once.")
@click.option("--no-verify", is_flag=True, help="Do not prove the artifact in another process.")
def command(model: Path, out: Path, form: str, overwrite: bool, no_verify: bool) -> None:
    """Write MODEL, a .keras file, as an artifact into the folder OUT, and prove it."""
    load_tensorflow()
    from keras_seqzoo import exporting, saving
    from keras_seqzoo.utils import files

    files.refuse_existing(out, overwrite=overwrite)
    exporting.export(
        saving.load(model), out, format=form, verify=not no_verify, overwrite=overwrite
    )
    click.echo(f"Written: {out}")
