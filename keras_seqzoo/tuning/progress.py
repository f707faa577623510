"""Progress of a search: a progress bar on a terminal, else one line per trial."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_LOG_INTERVAL = 30.0  # seconds between lines of a log while trials train together


class SearchProgress:
    """Context manager that shows finished trials, the best metrics so far, and the time left."""

    def __init__(self, done: int, total: int, *, verbose: int):
        self.console = Console(quiet=not verbose)
        self.last_message = time.monotonic()
        self.started, self.done, self.at_start, self.total = time.monotonic(), done, done, total
        self.bar = Progress(
            TextColumn("[bold]search"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[best]}"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not (verbose and self.console.is_terminal),
        )
        self.task = self.bar.add_task("search", total=total, completed=done, best="")

    def __enter__(self) -> SearchProgress:
        self.bar.start()
        return self

    def __exit__(self, *_) -> None:
        self.bar.stop()

    def on_epochs_end(self, trials: int, fraction: float) -> None:
        """Move the bar while trials train together.

        Args:
            trials: int, number of trials that train.
            fraction: float in [0, 1], finished part of the epochs of this round.
        """
        self.bar.update(self.task, completed=self.done + trials * fraction)
        if not self.console.is_terminal and time.monotonic() - self.last_message > _LOG_INTERVAL:
            self.print(f"Training {trials} trials together: {fraction:.0%} of this round's epochs.")

    def on_trial_end(self, number: int, text: str, best: str) -> None:
        """Move the bar; without a terminal, print a line.

        Args:
            number: int, number of the trial.
            text: str, its metrics, or why there are none.
            best: str, metrics of the best trial so far.
        """
        self.done += 1
        self.bar.update(self.task, completed=self.done, best=best)
        if not self.console.is_terminal:
            pace = (time.monotonic() - self.started) / (self.done - self.at_start)
            left = _duration((self.total - self.done) * pace)
            self.print(
                f"{self.done}/{self.total} done, trial {number}: {text}; best {best}; {left} left"
            )

    def print(self, text: str) -> None:
        """Print a line above the bar."""
        self.last_message = time.monotonic()
        self.console.print(text, highlight=False, soft_wrap=True)


@contextlib.contextmanager
def quiet_tensorflow() -> Iterator[None]:
    """Hide TensorFlow's retracing warning: every trial has a new model, which must be traced."""

    def keep(record: logging.LogRecord) -> bool:
        return "retracing" not in record.getMessage()

    logger = logging.getLogger("tensorflow")
    logger.addFilter(keep)
    try:
        yield
    finally:
        logger.removeFilter(keep)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"
