"""`keras-seqzoo export`: a model as an artifact for serving."""

from __future__ import annotations

from pathlib import Path

import click

from keras_seqzoo.cli.quiet import load_tensorflow


@click.command("export")
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "artifact_format",
    type=click.Choice(["tf_saved_model", "onnx", "litert", "openvino", "torch"]),
    default="tf_saved_model",
    show_default=True,
    help="Runtime of the artifact.",
)
@click.option("--overwrite", is_flag=True, help="Replace OUT if it exists, atomically.")
@click.option(
    "--no-verify", is_flag=True, help="Skip the verification of the artifact in another process."
)
def command(model: Path, out: Path, artifact_format: str, overwrite: bool, no_verify: bool) -> None:
    """Export MODEL, a .keras file, as an artifact into the folder OUT, and verify it."""
    load_tensorflow()
    from keras_seqzoo import exporting, saving
    from keras_seqzoo.utils import files

    files.refuse_existing(out, overwrite=overwrite)
    exporting.export(
        saving.load(model), out, format=artifact_format, verify=not no_verify, overwrite=overwrite
    )
    click.echo(f"Written: {out}")
