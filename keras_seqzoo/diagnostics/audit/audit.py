"""An audit: is a sequence model what it is taken for? Any Keras model, artifact or function."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keras_seqzoo import errors
from keras_seqzoo.diagnostics.audit.checks import CHECKS, EXPECTS, Audit, skipped
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
    """Checks a sequence model for what goes wrong with sequence models, in silence.

    Always expected:

    - repeats: the same call, from the same state and seeds, gives the same answer;
    - state: no call owes anything to calls before it, but for layers declared stateful, whose
      `reset_state` must set them back;
    - rows: a row's answer does not depend on the order, number or content of other rows;
    - padding: more padding, on either side, changes no real step (where the model masks some);
    - inference: it draws no random numbers, as a Dropout called with training=True does;
    - training: a row sees no other rows, nor, of a causal model, later steps, unless it does at
      inference, too; through a `BatchNormalization` over time it does.

    Expected where declared, and shown otherwise:

    - look_ahead, with `causal=True`: other later inputs leave earlier outputs as they were;
    - steps, with `causal=True`: the first steps alone, or one step after another in a stateful
      model, give what they give in the whole sequence;
    - past, with `max_leakage` or `max_horizon`: state leakage and memory horizon, as `leakage`
      measures them.

    Differences are in units of round-off: the model's precision times the largest value of each
    output, or, if that is more, what rounding the input does to it. What was declared and cannot be
    checked does not pass. Where calls do not repeat nothing else can be told, and is skipped.

    Shapes: `x` is `(batch, time, features)`, or `(batch, time)` for tokens; the output has the same
        steps, or is one answer for each row, or has steps of its own.
    Masking: padded steps of `x` are not compared.
    State: the model is left as it was found.

    Args:
        model: any Keras model (Functional, Sequential, subclassed), a loaded SavedModel, or a
            function from array to array.
        x: rows of the kind that the model is for, some dozens of them. For several inputs a list
            or a dict of arrays, for a function of several a tuple.
        causal: bool, whether no output may depend on later inputs.
        max_leakage: float of at least 0, budget of the leakage index.
        max_horizon: int, at least 1, budget of the memory horizon, steps.
        mask: bool array `(batch, time)`, True for real steps. Default: the model's own.
        mask_value: number that fills padded steps, NaN included. Default: that of the model's
            `Masking`, `StepMask` or `Embedding(mask_zero=True)`.
        sides: "both", "left" or "right", where padding may be.
        along: of a model with several inputs, those that share the output's time axis, by name or
            position; the others stay as they are. An encoder-decoder has "target". Without it the
            checks that move in time are skipped.
        skip: names of checks to leave out.
        tolerance: positive float, how many units of round-off count as no difference.
        block: int, rows that belong together, as of `leakage`.
        seed: int, at least 0.

    Returns:
        An `AuditReport`: `report.passed`, `report["rows"]`, `report.check()` for a test.

    Raises:
        ArgumentError: if an argument cannot be used, or the model takes or gives strings.
        DataError: if `x` has a shape, type or value that the model cannot take.

    Example:

    >>> import keras_seqzoo as zoo
    >>> x = np.random.default_rng(0).normal(size=(32, 20, 1))
    >>> report = zoo.audit(lambda x: x - x.mean(axis=0), x, causal=True)
    >>> report["rows"].verdict, report["look_ahead"].verdict, report.passed
    ('fails', 'holds', False)
    """
    _check(causal, max_leakage, max_horizon, mask_value, sides, skip, tolerance, block, seed)
    inputs = read_inputs(model, x, along)
    subject = ModelUnderTest(
        model, inputs, mask=mask, mask_value=mask_value, tolerance=tolerance, seed=seed
    )
    try:
        state = Audit(subject, causal, max_leakage, max_horizon, sides, block, seed)
        findings = _run(state, [one for one in CHECKS if one not in skip])
    finally:
        subject.leave()
    return AuditReport(
        name=getattr(model, "name", None) or getattr(model, "__name__", type(model).__name__),
        findings=tuple(findings),
        tolerance=float(tolerance),
        round_off=subject.relative_unit(),
        seed=int(seed),
    )


def _run(state: Audit, names: list[str]) -> list[Finding]:
    """The findings in order; once calls are seen not to repeat, the rest is skipped."""
    findings, reason = [], ""
    declared = {
        "look_ahead": state.causal,
        "steps": state.causal,
        "past": state.max_leakage is not None or state.max_horizon is not None,
    }
    for name in names:
        if reason:
            asked = declared.get(name, False)
            findings.append(skipped(name, EXPECTS[name], reason, declared=asked))
            continue
        findings.append(CHECKS[name](state))
        if name in ("repeats", "inference") and state.broken(name):
            reason = f"answers differ from call to call: see {name}"
    return findings


def _check(
    causal, max_leakage, max_horizon, mask_value, sides, skip, tolerance, block, seed
) -> None:
    check_bool(causal=causal)
    if max_leakage is not None:
        check_not_negative(max_leakage=max_leakage)
    if max_horizon is not None:
        check_positive(max_horizon=max_horizon)
    check_mask_value(mask_value)
    check_choice("sides", sides, ("both", "left", "right"))
    skip = [skip] if isinstance(skip, str) else skip
    check_sequence(skip=skip)
    for name in skip:
        check_choice("skip", name, CHECKS)
    if not is_real(tolerance) or tolerance <= 0:
        raise errors.ArgumentError(argument_message("tolerance", "a positive number", tolerance))
    check_positive(block=block)
    check_seed(seed)
