"""What a person sees while a search runs: one live line, or one line per trial in a log file."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_SILENCE = 30.0  # seconds without a line in a log file


class SearchProgress:
    """Trials done, the best figures so far, time left. A context manager."""

    def __init__(self, done: int, total: int, *, verbose: int):
        self.console = Console(quiet=not verbose)
        self.said = time.monotonic()
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

    def advanced(self, trials: int, share: float) -> None:
        """Moves the bar while trials train together, each by that share of what it does next."""
        self.bar.update(self.task, completed=self.done + trials * share)
        if not self.console.is_terminal and time.monotonic() - self.said > _SILENCE:
            self.say(f"{trials} trials train together: {share:.0%} of the way to the next look.")

    def trial_ended(self, number: int, text: str, best: str) -> None:
        """Moves the bar; where there is no terminal, writes a line."""
        self.done += 1
        self.bar.update(self.task, completed=self.done, best=best)
        if not self.console.is_terminal:
            pace = (time.monotonic() - self.started) / (self.done - self.at_start)
            left = _duration((self.total - self.done) * pace)
            self.say(
                f"{self.done}/{self.total} done, trial {number}: {text}; best {best}; {left} left"
            )

    def say(self, text: str) -> None:
        """Prints a sentence above the bar."""
        self.said = time.monotonic()
        self.console.print(text, highlight=False, soft_wrap=True)


@contextlib.contextmanager
def quiet_tensorflow() -> Iterator[None]:
    """Drops TensorFlow's advice about retracing: every trial is another model, so it must trace."""

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
