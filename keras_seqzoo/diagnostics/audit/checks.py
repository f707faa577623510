"""The checks of an audit by name, in the order in which they run."""

from __future__ import annotations

from collections.abc import Callable

from keras_seqzoo.diagnostics.audit import (
    batch_independence,
    padding,
    repeatability,
    time_dependence,
)
from keras_seqzoo.diagnostics.audit.context import AuditContext
from keras_seqzoo.diagnostics.audit.report import Finding

CHECKS: dict[str, Callable[[AuditContext], Finding]] = {
    "repeats": repeatability.check_repeats,
    "inference": repeatability.check_inference,
    "state": repeatability.check_state,
    "rows": batch_independence.check_rows,
    "padding": padding.check_padding,
    "look_ahead": time_dependence.check_look_ahead,
    "steps": time_dependence.check_steps,
    "training": batch_independence.check_training,
    "past": time_dependence.check_past,
}
EXPECTATIONS = {
    "repeats": repeatability.REPEATS.expectation,
    "inference": repeatability.INFERENCE.expectation,
    "state": repeatability.STATE.expectation,
    "rows": batch_independence.ROWS.expectation,
    "padding": padding.PADDING.expectation,
    "look_ahead": time_dependence.LOOK_AHEAD.expectation,
    "steps": time_dependence.STEPS.expectation,
    "training": batch_independence.TRAINING.expectation,
    "past": "no budget was declared",
}
