"""Checks along time: look-ahead, step-by-step calls, and state leakage.

State leakage is the history dependence of the output: the share of its variance that is due to
inputs before the present one (total Sobol index of the past); nothing to do with train/test data
leakage.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from keras_seqzoo.diagnostics.audit.comparison import Counterexample
from keras_seqzoo.diagnostics.audit.context import (
    NO_STEPS,
    NO_TIME_INPUTS,
    NOT_ALIGNED,
    ONE_ROW,
    AuditContext,
    CheckText,
    size,
    skipped,
)
from keras_seqzoo.diagnostics.audit.model_under_test import ModelUnderTest
from keras_seqzoo.diagnostics.audit.report import Finding
from keras_seqzoo.diagnostics.leakage.leakage import leakage
from keras_seqzoo.diagnostics.leakage.report import LeakageReport
from keras_seqzoo.errors import DataError

LOOK_AHEAD = CheckText(
    expectation="no output depends on a later input",
    holds="later inputs change no earlier output",
    fails="later inputs change earlier outputs",
    advice="Something reads time backwards: Bidirectional, a flip, attention without a causal "
    "mask, padding='same' in a convolution, a mean or a normalization over time.",
)
STEPS = CheckText(
    expectation="step-by-step calls give the output of the whole sequence",
    holds="the first steps alone give the same output as in the whole sequence",
    fails="the first steps alone give another output than in the whole sequence",
    advice="A model served step by step then differs from the model measured on whole sequences: "
    "see look_ahead. If that holds, something depends on the number of steps.",
)
PAST_ADVICE = (
    "Use fewer units, a recurrent_regularizer (l1, l2, SpectralNorm) or LeakagePenalty to reduce "
    "it; zoo.search finds the best model within a budget."
)


def check_look_ahead(context: AuditContext) -> Finding:
    """Exchanges later inputs between rows, and compares the outputs before them."""
    model, causal = context.model, context.causal
    reason = _no_steps_reason(model) or (ONE_ROW if len(model.subset) < 2 else "")
    if reason:
        declared = causal and reason != NO_STEPS  # such an output cannot look ahead
        return skipped("look_ahead", LOOK_AHEAD.expectation, reason, declared=declared)
    example = largest_look_ahead(model, model.subset_outputs, training=False)
    return context.finding("look_ahead", example, LOOK_AHEAD, expected=causal, declared=causal)


def largest_look_ahead(model: ModelUnderTest, y: np.ndarray, *, training: bool) -> Counterexample:
    """The largest change of earlier outputs where rows take the later steps of another row.

    Args:
        model: `ModelUnderTest`.
        y: outputs of the rows in `model.subset` with their own later steps.
        training: bool, training mode.
    """
    subset, steps = model.subset, model.x.shape[1]
    donors = np.roll(subset, 1)
    examples = []
    for cut in sorted({1, steps // 2, steps - 1}):
        x = np.concatenate([model.x[subset, :cut], model.x[donors, cut:]], axis=1)
        actual, real = model(x, subset, training=training)[:, :cut], model.real[subset, :cut]
        examples.append(model.compare(actual, y[:, :cut], subset, real=real))
    return max(examples, key=size)


def check_steps(context: AuditContext) -> Finding:
    """Compares prefixes of the sequences, or single steps of a stateful model, with the whole."""
    model, causal = context.model, context.causal
    reason = _no_steps_reason(model) or model.fixed_time
    if reason:
        # A model of one output or of fixed time is not served in steps.
        declared = causal and reason not in (NO_STEPS, model.fixed_time)
        return skipped("steps", STEPS.expectation, reason, declared=declared)
    subset, total, text = model.subset, model.x.shape[1], STEPS
    x, y, real = model.x[subset], model.subset_outputs, model.real[subset]
    if model.state is not None and model.state.stateful:
        outputs = [
            model(x[:, step : step + 1], subset, keep_state=step > 0) for step in range(total)
        ]
        example = model.compare(np.concatenate(outputs, axis=1), y, subset, real=real)
        text = dataclasses.replace(
            STEPS,
            holds="single steps give the same output as the whole sequence",
            fails="single steps give another output than the whole sequence",
        )
    else:
        examples = [
            model.compare(
                model(x[:, :length], subset), y[:, :length], subset, real=real[:, :length]
            )
            for length in sorted({1, 2, total // 2, total - 1} - {0})
        ]
        example = max(examples, key=size)
    return context.finding("steps", example, text, expected=causal, declared=causal)


def _no_steps_reason(model: ModelUnderTest) -> str:
    if not model.has_time:
        return NO_TIME_INPUTS
    if model.aligned:
        return ""
    return NO_STEPS if model.single_output else NOT_ALIGNED


def check_past(context: AuditContext) -> Finding:
    """Compares state leakage and memory horizon with their budgets."""
    model = context.model
    limits = []
    if context.max_leakage is not None:
        limits.append(f"a state leakage of at most {context.max_leakage:g}")
    if context.max_horizon is not None:
        limits.append(f"a memory horizon of at most {context.max_horizon} steps")
    expectation, declared = " and ".join(limits) or "no budget was declared", bool(limits)
    reason = NO_TIME_INPUTS if not model.has_time else ""
    if model.has_time and not (model.aligned or model.single_output):
        reason = NOT_ALIGNED
    if reason:
        return skipped("past", expectation, reason, declared=declared)
    try:
        report = _measure_leakage(context)
    except DataError as error:  # no two rows with the same padding, or one row only
        return skipped("past", expectation, str(error).rstrip("."), declared=declared)
    if np.isnan(report.index):
        reason = "the output is constant on these rows"
        return skipped("past", expectation, reason, declared=declared)
    horizon = report.memory_horizon
    within = (context.max_leakage is None or report.index <= context.max_leakage) and (
        context.max_horizon is None or (horizon is not None and horizon <= context.max_horizon)
    )
    verdict = "shown" if not declared else "holds" if within else "fails"
    low, high = report.interval
    return Finding(
        "past",
        verdict,
        expectation,
        f"state leakage {report.index:.3g} (95 % interval {low:.3g} to {high:.3g}), memory horizon "
        f"{horizon or f'more than {report.lags[-1]}'} steps",
        PAST_ADVICE if verdict == "fails" else "",
        None,
        declared,
        {"index": report.index, "interval": report.interval, "memory_horizon": horizon},
    )


def _measure_leakage(context: AuditContext) -> LeakageReport:
    model = context.model

    def function(x: np.ndarray) -> np.ndarray:
        # Rows are whole copies of the batch, one for each cut; other inputs accompany them.
        return model(x, np.arange(len(x)) % len(model.x))

    return leakage(
        function,
        model.x,
        mask=model.mask,
        output_step=None if model.aligned else 0,
        block=max(round(context.block * model.block_scale), 1),
        seed=context.seed,
    )
