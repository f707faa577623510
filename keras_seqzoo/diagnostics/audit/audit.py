"""Audit of a Keras model, artifact or function against the expectations of sequence models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keras_seqzoo import errors
from keras_seqzoo.diagnostics.audit.checks import CHECKS, EXPECTATIONS
from keras_seqzoo.diagnostics.audit.context import AuditContext, skipped
from keras_seqzoo.diagnostics.audit.inputs import read_inputs
from keras_seqzoo.diagnostics.audit.model_under_test import ModelUnderTest
from keras_seqzoo.diagnostics.audit.report import AuditReport, Finding
from keras_seqzoo.utils.argument_validation import (
    argument_message,
    check_bool,
    check_choice,
    check_mask_value,
    check_not_negative,
    check_positive,
    check_seed,
    check_sequence,
    is_real,
)

TOLERANCE = 32.0


def audit(
    model: Any,
    x: Any,
    *,
    causal: bool = False,
    max_leakage: float | None = None,
    max_horizon: int | None = None,
    mask: Any = None,
    mask_value: float | None = None,
    sides: str = "both",
    along: str | int | Sequence[str | int] | None = None,
    skip: Sequence[str] = (),
    tolerance: float = TOLERANCE,
    block: int = 1,
    seed: int = 0,
) -> AuditReport:
    """Checks a sequence model for silent faults of masks, state, causality and batch independence.

    Always expected:

    - repeats: the same call, from the same state and seeds, gives the same output;
    - state: no call depends on earlier calls, except through layers with `stateful=True`, whose
      `reset_state` must restore their initial state;
    - rows: the output of a row does not depend on the order, number or content of other rows;
    - padding: more padding, on either side, changes no real step (of models with a mask);
    - inference: it draws no random numbers, as a Dropout called with training=True does;
    - training: training uses no other rows, and in a causal model no later steps, unless inference
      does; a `BatchNormalization` over time does in training only.

    Expected where declared, and shown otherwise:

    - look_ahead, with `causal=True`: other later inputs do not change earlier outputs;
    - steps, with `causal=True`: the first steps alone, or single steps of a stateful model, give
      the same outputs as the whole sequence;
    - past, with `max_leakage` or `max_horizon`: state leakage and memory horizon are within their
      budgets, as measured by `leakage`. State leakage is the history dependence of the output: the
      share of its variance that is due to inputs before the present one (total Sobol index of the
      past); nothing to do with train/test data leakage.

    Differences are in units of round-off: the model's precision times the largest value of each
    output, or the effect of rounding the input, if that is larger. A declared expectation that
    cannot be checked does not pass. Where calls do not repeat, all later checks are skipped.

    Shapes: `x` is `(batch, time, features)`, or `(batch, time)` for tokens. The output has the same
        steps, or other steps, or is one output per row.
    Masking: padded steps of `x` are not compared.
    State: variables of the model have their original values afterwards.

    Args:
        model: a Keras model (Functional, Sequential, subclassed), a loaded SavedModel, or a
            function from array to array.
        x: typical rows of input, some dozens. For several inputs a list or a dict of arrays, for a
            function of several a tuple.
        causal: bool, whether no output may depend on later inputs.
        max_leakage: float of at least 0, budget of the state leakage index.
        max_horizon: int, at least 1, budget of the memory horizon, steps.
        mask: bool array `(batch, time)`, True for real steps. Default: the model's own mask.
        mask_value: number that fills padded steps, NaN included. Default: that of the model's
            `Masking`, `StepMask` or `Embedding(mask_zero=True)`.
        sides: "both", "left" or "right", where padding may be.
        along: for a model with several inputs, those that share the output's time axis, by name or
            position; the others are not changed. For an encoder-decoder it is "target". Without
            it the checks along time are skipped.
        skip: names of checks to skip.
        tolerance: positive float, units of round-off up to which a difference counts as none.
        block: int, rows that belong together, as in `leakage`.
        seed: int, at least 0.

    Returns:
        An `AuditReport`: `report.passed`, `report["rows"]`, `report.check()` for a test.

    Raises:
        ArgumentError: if an argument is invalid, or the model has string inputs or outputs.
        DataError: if `x` has a shape, type or value that the model cannot take.

    Example:

    >>> import keras_seqzoo as zoo
    >>> x = np.random.default_rng(0).normal(size=(32, 20, 1))
    >>> report = zoo.audit(lambda x: x - x.mean(axis=0), x, causal=True)
    >>> report["rows"].verdict, report["look_ahead"].verdict, report.passed
    ('fails', 'holds', False)
    """
    check_bool(causal=causal)
    if max_leakage is not None:
        check_not_negative(max_leakage=max_leakage)
    if max_horizon is not None:
        check_positive(max_horizon=max_horizon)
    check_mask_value(mask_value)
    check_choice("sides", sides, ("both", "left", "right"))
    skip = _check_skip(skip)
    if not is_real(tolerance) or tolerance <= 0:
        raise errors.ArgumentError(argument_message("tolerance", "a positive number", tolerance))
    check_positive(block=block)
    check_seed(seed)
    inputs = read_inputs(model, x, along)
    tested = ModelUnderTest(
        model, inputs, mask=mask, mask_value=mask_value, tolerance=tolerance, seed=seed
    )
    try:
        context = AuditContext(tested, causal, max_leakage, max_horizon, sides, block, seed)
        findings = _run_checks(context, [name for name in CHECKS if name not in skip])
    finally:
        tested.restore()
    return AuditReport(
        name=getattr(model, "name", None) or getattr(model, "__name__", type(model).__name__),
        findings=tuple(findings),
        tolerance=float(tolerance),
        round_off=tested.relative_unit(),
        seed=int(seed),
    )


def _run_checks(context: AuditContext, names: list[str]) -> list[Finding]:
    """The findings in order; after calls that do not repeat, all checks are skipped."""
    findings, reason = [], ""
    declared = {
        "look_ahead": context.causal,
        "steps": context.causal,
        "past": context.max_leakage is not None or context.max_horizon is not None,
    }
    for name in names:
        if reason:
            finding = skipped(name, EXPECTATIONS[name], reason, declared=declared.get(name, False))
        else:
            finding = CHECKS[name](context)
        findings.append(finding)
        if not reason and name in ("repeats", "inference") and context.failed(name):
            reason = f"outputs differ from call to call: see {name}"
    return findings


def _check_skip(skip: Any) -> Sequence[str]:
    skip = [skip] if isinstance(skip, str) else skip
    check_sequence(skip=skip)
    for name in skip:
        check_choice("skip", name, CHECKS)
    return skip
