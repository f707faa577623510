"""Check that padding is masked: more padding changes no real step."""

from __future__ import annotations

import dataclasses

import numpy as np

from keras_seqzoo.diagnostics.audit.comparison import Counterexample
from keras_seqzoo.diagnostics.audit.context import (
    NO_TIME_INPUTS,
    AuditContext,
    CheckText,
    skipped,
)
from keras_seqzoo.diagnostics.audit.model_under_test import ModelUnderTest
from keras_seqzoo.diagnostics.audit.report import Finding

PADDING = CheckText(
    expectation="more padding changes no real step",
    advice="The mask is lost between layers, or a later layer ignores it: slicing, concatenation "
    "and arithmetic drop masks, and convolutions, Flatten and y[:, -1] read padding. Pass mask= to "
    "each layer explicitly; for layers without mask support, set padded steps to 0 or pool over "
    "real steps only.",
)


def check_padding(context: AuditContext) -> Finding:
    """Compares the same rows with more padding on the left, on the right and on both sides."""
    model = context.model
    if not model.has_time:
        return skipped("padding", PADDING.expectation, NO_TIME_INPUTS)
    if model.padding is None:
        reason = "the model has no known mask"
        if model.mask is not None:
            reason = "the value of padded steps is not known: declare it with mask_value="
        return skipped("padding", PADDING.expectation, reason)
    steps = model.x.shape[1]
    amounts = [max(steps // 4, 1)] if model.fixed_time else [3, 2 * steps]
    if model.fixed_time and (steps < 3 or context.sides != "both"):
        return skipped("padding", PADDING.expectation, model.fixed_time)
    mixed = context.sides == "both" and not context.failed("rows")
    trials = [
        trial
        for amount in amounts
        for trial in _padded_calls(model, amount, context.sides, mixed, model.padding)
    ]
    if not trials:
        return skipped("padding", PADDING.expectation, "`x` has rows of padding alone")
    example, arrangement = max(trials, key=lambda trial: trial[0].size)
    side = "on either side" if context.sides == "both" else f"on the {context.sides}"
    expectation = f"more padding {side} changes no real step"
    text = dataclasses.replace(
        PADDING,
        expectation=expectation,
        holds=expectation,
        fails=f"{arrangement} change real steps",
    )
    return context.finding("padding", example, text)


def _padded_calls(
    model: ModelUnderTest, amount: int, sides: str, mixed: bool, padding: np.ndarray
) -> list[tuple[Counterexample, str]]:
    """Largest differences with more padding, each with its arrangement in words.

    With a fixed number of steps, arrangements are compared with each other instead.

    Args:
        model: `ModelUnderTest`.
        amount: int, padded steps to add.
        sides: "left", "right" or "both", where padding may be.
        mixed: bool, whether to also pad each row by another amount.
        padding: a padded step.
    """
    kept = model.x.shape[1] - (amount if model.fixed_time else 0)
    rows = model.subset[model.real[model.subset][:, :kept].any(axis=1)]
    if not len(rows) or (model.fixed_time and len(rows) < len(model.subset)):
        return []
    x, real = model.x[rows, :kept], model.real[rows, :kept] if model.aligned else None
    left_amounts = {"right": 0, "left": amount, "both": amount // 2}
    arrangements = {
        f"{amount} padded steps on {'both sides' if side == 'both' else f'the {side}'}": np.full(
            len(rows), left
        )
        for side, left in left_amounts.items()
        if sides in ("both", side)
    }
    if mixed:
        arrangements["padded steps in another number per row"] = np.arange(len(rows)) % (amount + 1)
    examples = []
    expected = None if model.fixed_time else model(rows=rows)
    for arrangement, left in arrangements.items():
        positions = left[:, None] + np.arange(kept)
        actual = model(_pad(x, positions, kept + amount, padding), rows)
        if model.aligned:
            actual = actual[np.arange(len(rows))[:, None], positions]
        expected = actual if expected is None else expected
        examples.append((model.compare(actual, expected, rows, real=real), arrangement))
    return examples


def _pad(x: np.ndarray, positions: np.ndarray, steps: int, padding: np.ndarray) -> np.ndarray:
    """Rows of `steps` padded steps, with the steps of `x` at `positions`, `(batch, time)`."""
    dtype = np.result_type(x.dtype, np.float32) if not np.isfinite(padding).all() else x.dtype
    padded = np.empty((len(x), steps, *x.shape[2:]), dtype)
    padded[:] = padding
    padded[np.arange(len(x))[:, None], positions] = x
    return padded
