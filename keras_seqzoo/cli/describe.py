"""`keras-seqzoo describe`: the card of a model."""

from __future__ import annotations

import json

import click

from keras_seqzoo import registry
from keras_seqzoo.cli.quiet import load_tensorflow


@click.command("describe")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print the card as JSON.")
def command(name: str, as_json: bool) -> None:
    """Show the card of model NAME: shapes, arguments, search space, references."""
    registry.get_entry(name)  # refuses an unknown name before TensorFlow is imported
    load_tensorflow()
    card = registry.describe(name)
    click.echo(json.dumps(card.to_dict(), indent=2) if as_json else str(card))
