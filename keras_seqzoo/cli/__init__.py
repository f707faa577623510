"""Command line, with one module per command. Heavy imports happen when a command runs."""

from __future__ import annotations

import importlib
import sys

import click

import keras_seqzoo
from keras_seqzoo.errors import SeqZooError

COMMANDS = (
    "anomaly",
    "audit",
    "describe",
    "evaluate",
    "export",
    "leakage",
    "list",
    "predict",
    "search",
    "train",
)


class CommandError(click.ClickException):
    """An error message of one sentence on standard error, with exit status 2."""

    exit_code = 2


class Commands(click.Group):
    """Group that imports a command's module on first use, so that `--help` and `list` are fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all commands."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """The command `name`, from its module."""
        if name not in COMMANDS:
            return None
        return importlib.import_module(f"keras_seqzoo.cli.{name}").command

    def invoke(self, ctx: click.Context):
        """Runs the command, and turns errors of the package and of files into one sentence."""
        try:
            return super().invoke(ctx)
        except (SeqZooError, OSError) as error:
            if isinstance(error, BrokenPipeError):  # `keras-seqzoo list | head -1`
                sys.exit(0)
            raise CommandError(" ".join(str(error).split())) from error
        except KeyboardInterrupt:
            click.echo("Stopped. Repeat the command of a search to continue it.", err=True)
            sys.exit(130)


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(keras_seqzoo.__version__, prog_name="keras-seqzoo")
def main() -> None:
    """Recurrent sequence models for Keras: find, tune, measure and export them."""
