"""`keras-seqzoo list`: names of the zoo's models."""

from __future__ import annotations

import json

import click

from keras_seqzoo import registry


@click.command("list")
@click.argument("pattern", default="*")
@click.option("--task", type=click.Choice(registry.TASKS), help="Only models for this task.")
@click.option("--exclude", multiple=True, metavar="PATTERN", help="Exclude names that match this.")
@click.option("--json", "as_json", is_flag=True, help="Print the names as a JSON list.")
def command(pattern: str, task: str | None, exclude: tuple[str, ...], as_json: bool) -> None:
    """List the models of the zoo with names that match PATTERN (wildcards; default all)."""
    names = registry.list_models(pattern, task=task, exclude=exclude)
    if as_json:
        click.echo(json.dumps(names))
        return
    width = max(map(len, names), default=0)
    for name in names:
        entry = registry.get_entry(name)
        click.echo(f"{name:<{width}}  {entry.task:<14}  {entry.summary}")
