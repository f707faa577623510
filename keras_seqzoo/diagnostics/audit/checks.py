"""The checks of an audit: each asks a subject twice what ought to be predicted once."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from keras_seqzoo.diagnostics.audit.model_under_test import ModelUnderTest
from keras_seqzoo.diagnostics.audit.report import Example, Finding
from keras_seqzoo.diagnostics.leakage.leakage import leakage
from keras_seqzoo.errors import DataError
from keras_seqzoo.inspection.model_graph import flatten_layers

UNTIMED = (
    "which inputs share the output's time axis is not known: say so with along=, their names or "
    "positions"
)
NO_STEPS = "the output has no steps of its own: it is one answer to the whole sequence"
NOT_ALIGNED = "the output has other steps than the input"
ONE_ROW = "`x` has one row only"
NO_TRAINING = "a function has no training mode"


@dataclasses.dataclass
class Audit:
    """What has been found so far, and what was declared.

    Attributes:
        subject: `ModelUnderTest`.
        causal: bool, no output may depend on a later input.
        max_leakage: float or None.
        max_horizon: int or None.
        sides: "left", "right" or "both", where padding may be.
        block: int, as of `leakage`.
        seed: int.
        examples: dict from checks to their worst examples.
    """

    subject: ModelUnderTest
    causal: bool
    max_leakage: float | None
    max_horizon: int | None
    sides: str
    block: int
    seed: int
    examples: dict[str, Example] = dataclasses.field(default_factory=dict)

    def broken(self, check: str) -> bool:
        """Whether a check that ran before found a difference."""
        example = self.examples.get(check)
        return example is not None and example.size > self.subject.tolerance

    def judged(self, check: str, example: Example, text: dict[str, str], **options: Any) -> Finding:
        """A finding from the worst example of a check.

        Args:
            check: its name.
            example: the largest difference found.
            text: "expects", "holds", "fails", "advice" in words.
            **options: expected (True): whether a difference is a failure; declared (False); exact
                (False): whether the very same call was asked for.
        """
        self.examples[check] = example
        expected, declared = options.get("expected", True), options.get("declared", False)
        broken = self.broken(check)
        verdict = "shown" if not expected else "fails" if broken else "holds"
        blind = "" if broken or options.get("exact") else self.subject.blind()
        if blind:
            return skipped(check, text["expects"], blind, declared=declared)
        found = text["fails"] if broken else text["holds"]
        if not broken and example.size > 0:
            found += f" (differences of up to {example.size:.2g} round-off units)"
        advice = text["advice"] if verdict == "fails" else ""
        shown = example if broken else None
        return Finding(check, verdict, text["expects"], found, advice, shown, declared)


def skipped(check: str, expects: str, reason: str, *, declared: bool = False) -> Finding:
    """A check that could not be made."""
    return Finding(check, "skipped", expects, reason, "", None, declared)


# ------------------------------------------------------------------------- the same call again

REPEATS = {
    "expects": "the same call gives the same answer",
    "holds": "the same call gives the same answer",
    "fails": "the same call, from the same state and seeds, gives another answer",
    "advice": "What differs is no variable of Keras: random numbers without a "
    "keras.random.SeedGenerator, or a state kept in an attribute. Until then nothing else can be "
    "told.",
}


def repeats(audit: Audit) -> Finding:
    """The same call twice."""
    s = audit.subject
    few = s.few
    first, second = s(rows=few), s(rows=few)
    worst = s.worst(second, first, few, exact=True)
    return audit.judged("repeats", worst, REPEATS, exact=True)


STATE = {
    "expects": "a call owes nothing to calls before it, or only what reset_state undoes",
    "holds": "no call owes anything to calls before it",
    "fails": "an answer depends on the calls before",
    "advice": "Make the state an input and an output, or give the layer that keeps it "
    "stateful=True and a reset_state that sets it back to its start.",
}


def state(audit: Audit) -> Finding:
    """What a call leaves behind for the next one, and whether a reset takes it away."""
    s = audit.subject
    few = s.few
    other = few[::-1]
    expected = s(rows=few)
    s(rows=other, keep=True)
    found = s(rows=few, keep=True)
    carried = s.worst(found, expected, few, exact=True)
    if carried.size <= s.tolerance or s.memory is None or not s.memory.carrying:
        return audit.judged("state", carried, STATE, exact=True)
    names = ", ".join(layer.name for layer in s.memory.carrying)
    answers = []
    for _ in range(2):
        s.memory.reset()
        answers.append(s(rows=few, keep=True))
        s(rows=other, keep=True)
    text = STATE | {
        "holds": f"a state is kept between calls by {names}, and reset_state sets it back",
        "fails": f"a state is kept between calls by {names}, and reset_state does not set it back",
    }
    worst = s.worst(*answers[::-1], few, exact=True)
    return audit.judged("state", worst, text, exact=True)


# ------------------------------------------------------------------------------------- rows

ROWS = {
    "expects": "a row's answer depends on that row alone",
    "holds": "a row answers the same alone, in other company and in another order",
    "fails": "a row's answer depends on the other rows of its batch",
    "advice": "Something is taken over the batch: a mean, a BatchNormalization called with "
    "training=True, a softmax or a flip on axis 0. Take it over features instead, or from "
    "statistics that training has fixed.",
}


def rows(audit: Audit) -> Finding:
    """A row in another order, in other company and alone."""
    s = audit.subject
    few = s.few
    if len(few) < 2:
        return skipped("rows", ROWS["expects"], ONE_ROW)
    half, company = _other_company(few)
    asked = [
        (np.roll(few[::-1], 1), slice(None)),
        (company, slice(len(half))),
        *((few[at : at + 1], slice(None)) for at in {0, len(few) // 2, len(few) - 1}),
    ]
    found = [s.worst(s.y[few], s.few_y, few, real=s.real_outputs(few))]
    for chosen, kept in asked:
        answer, chosen = s(rows=chosen)[kept], chosen[kept]
        expected = s.few_y[np.searchsorted(few, chosen)]
        found.append(s.worst(answer, expected, chosen, real=s.real_outputs(chosen)))
    return audit.judged("rows", max(found, key=_size), ROWS)


# ------------------------------------------------------------------------------------ padding

PADDING = {
    "expects": "more padding changes no real step",
    "advice": "The mask is lost on the way, or a layer behind ignores it: slicing, concatenation "
    "and arithmetic drop masks, and convolutions, Flatten and y[:, -1] read padding. Pass mask= to "
    "each layer explicitly; with layers that cannot take one, set padded steps to 0 or pool over "
    "real steps alone.",
}


def padding(audit: Audit) -> Finding:
    """The same rows with padding on the left, on the right and on both sides."""
    s, expects = audit.subject, PADDING["expects"]
    if not s.timed:
        return skipped("padding", expects, UNTIMED)
    if s.padding is None:
        reason = "the model masks nothing that could be found"
        if s.mask is not None:
            reason = "what fills padded steps is not known: say so with mask_value="
        return skipped("padding", expects, reason)
    steps = s.x.shape[1]
    amounts = [max(steps // 4, 1)] if s.fixed else [3, 2 * steps]
    if s.fixed and (steps < 3 or audit.sides != "both"):
        return skipped("padding", expects, s.fixed)
    mixed = audit.sides == "both" and not audit.broken("rows")
    tried = [one for amount in amounts for one in _padded(s, amount, audit.sides, mixed)]
    if not tried:
        return skipped("padding", expects, "`x` has rows of padding alone")
    worst, how = max(tried, key=lambda one: one[0].size)
    side = "" if audit.sides == "both" else f" on the {audit.sides}"
    text = {
        "expects": f"more padding{side or ', on either side,'} changes no real step",
        "holds": f"more padding{side or ', on either side,'} changes no real step",
        "fails": f"{how} change real steps",
    }
    return audit.judged("padding", worst, PADDING | text)


def _padded(s: ModelUnderTest, amount: int, wanted: str, mixed: bool) -> list[tuple[Example, str]]:
    """Examples and what padding they had; where time is fixed, against padding on one side."""
    kept = s.x.shape[1] - (amount if s.fixed else 0)
    rows = s.few[s.real[s.few][:, :kept].any(axis=1)]
    if not len(rows) or (s.fixed and len(rows) < len(s.few)):
        return []
    x, real = s.x[rows, :kept], s.real[rows, :kept] if s.aligned else None
    sides = {"right": 0, "left": amount, "both": amount // 2}
    places = {
        f"{amount} padded steps on {'both sides' if side == 'both' else f'the {side}'}": np.full(
            len(rows), left
        )
        for side, left in sides.items()
        if wanted in ("both", side)
    }
    if mixed:
        places["padded steps of each row's own number"] = np.arange(len(rows)) % (amount + 1)
    found, expected = [], None if s.fixed else s(rows=rows)
    for how, left in places.items():
        at = left[:, None] + np.arange(kept)
        answer = s(_pad(x, at, kept + amount, s.padding), rows)
        if s.aligned:
            answer = answer[np.arange(len(rows))[:, None], at]
        expected = answer if expected is None else expected
        found.append((s.worst(answer, expected, rows, real=real), how))
    return found


def _pad(x: np.ndarray, places: np.ndarray, steps: int, padding: np.ndarray) -> np.ndarray:
    """Rows of padding, with the steps of `x` at `places`, `(batch, time)`."""
    dtype = np.result_type(x.dtype, np.float32) if not np.isfinite(padding).all() else x.dtype
    wide = np.empty((len(x), steps, *x.shape[2:]), dtype)
    wide[:] = padding
    wide[np.arange(len(x))[:, None], places] = x
    return wide


# --------------------------------------------------------------------------------------- time

LOOK_AHEAD = {
    "expects": "no output depends on a later input",
    "holds": "later inputs change no earlier output",
    "fails": "later inputs change earlier outputs",
    "advice": "Something reads time both ways: Bidirectional, a flip, attention without a causal "
    "mask, padding='same' in a convolution, a mean or a normalization over time.",
}


def look_ahead(audit: Audit) -> Finding:
    """Other later inputs, and what becomes of the outputs before them."""
    s, options = audit.subject, {"expected": audit.causal, "declared": audit.causal}
    reason = _why_no_steps(s) or (ONE_ROW if len(s.few) < 2 else "")
    if reason:
        asked = audit.causal and reason != NO_STEPS  # which cannot look ahead
        return skipped("look_ahead", LOOK_AHEAD["expects"], reason, declared=asked)
    worst = max(_futures(s, s.few_y, training=False), key=_size)
    return audit.judged("look_ahead", worst, LOOK_AHEAD, **options)


def _futures(s: ModelUnderTest, y: np.ndarray, *, training: bool):
    """The worst example at each of some cuts, where rows take another row's later steps.

    `y` is what few rows answer with steps of their own.
    """
    few, steps = s.few, s.x.shape[1]
    donors = np.roll(few, 1)
    for cut in sorted({1, steps // 2, steps - 1}):
        x = np.concatenate([s.x[few, :cut], s.x[donors, cut:]], axis=1)
        found = s(x, few, training=training)
        yield s.worst(found[:, :cut], y[:, :cut], few, real=s.real[few, :cut])


STEPS = {
    "expects": "step by step gives what the whole sequence gives",
    "holds": "the first steps alone give what they give in the whole sequence",
    "fails": "the first steps alone give something else than in the whole sequence",
    "advice": "What is served step by step is not what was measured on whole sequences: see "
    "look_ahead. If that holds, something depends on the number of steps.",
}


def steps(audit: Audit) -> Finding:
    """Beginnings of the sequences, or, of a model that keeps a state, one step after another."""
    s, options = audit.subject, {"expected": audit.causal, "declared": audit.causal}
    reason = _why_no_steps(s) or s.fixed
    if reason:
        asked = audit.causal and reason not in (NO_STEPS, s.fixed)  # which nobody takes in steps
        return skipped("steps", STEPS["expects"], reason, declared=asked)
    few, total = s.few, s.x.shape[1]
    if s.memory is not None and s.memory.carrying:
        answers = [s(s.x[few][:, at : at + 1], few, keep=at > 0) for at in range(total)]
        found = np.concatenate(answers, axis=1)
        worst = s.worst(found, s.few_y, few, real=s.real[few])
        text = STEPS | {
            "holds": "one step after another gives what the whole sequence gives",
            "fails": "one step after another gives something else than the whole sequence",
        }
        return audit.judged("steps", worst, text, **options)
    found = []
    for length in sorted({1, 2, total // 2, total - 1} - {0}):
        answer = s(s.x[few][:, :length], few)
        found.append(s.worst(answer, s.few_y[:, :length], few, real=s.real[few, :length]))
    return audit.judged("steps", max(found, key=_size), STEPS, **options)


def _why_no_steps(s: ModelUnderTest) -> str:
    if not s.timed:
        return UNTIMED
    if s.aligned:
        return ""
    return NO_STEPS if s.last else NOT_ALIGNED


def past(audit: Audit) -> Finding:
    """State leakage and memory horizon, against their budgets."""
    s = audit.subject
    limits = []
    if audit.max_leakage is not None:
        limits.append(f"a leakage of at most {audit.max_leakage:g}")
    if audit.max_horizon is not None:
        limits.append(f"a memory horizon of at most {audit.max_horizon} steps")
    expects, declared = " and ".join(limits) or "no budget was declared", bool(limits)
    reason = UNTIMED if not s.timed else "" if s.aligned or s.last else NOT_ALIGNED
    if reason:
        return skipped("past", expects, reason, declared=declared)
    try:
        report = _leakage(audit)
    except DataError as error:  # no two rows with the same padding, or one row only
        return skipped("past", expects, str(error).rstrip("."), declared=declared)
    if np.isnan(report.index):
        return skipped("past", expects, "the output is constant on these rows", declared=declared)
    horizon = report.memory_horizon
    shown = f"memory horizon {horizon}" if horizon else f"memory horizon beyond {report.lags[-1]}"
    low, high = report.interval
    found = f"leakage {report.index:.3g} (95 % interval {low:.3g} to {high:.3g}), {shown} steps"
    within = (audit.max_leakage is None or report.index <= audit.max_leakage) and (
        audit.max_horizon is None or (horizon is not None and horizon <= audit.max_horizon)
    )
    verdict = "shown" if not declared else "holds" if within else "fails"
    advice = (
        "Fewer units, a recurrent_regularizer (l1, l2, SpectralNorm), or LeakagePenalty press it "
        "down; zoo.search finds the best model within a budget."
    )
    measured = {"index": report.index, "interval": report.interval, "memory_horizon": horizon}
    return Finding(
        "past", verdict, expects, found, advice if verdict == "fails" else "", None, declared,
        measured,
    )  # fmt: skip


def _leakage(audit: Audit):
    s = audit.subject

    def function(x: np.ndarray) -> np.ndarray:
        # Rows come in whole copies of the batch, one for each cut; other inputs go with them.
        return s(x, np.arange(len(x)) % len(s.x))

    return leakage(
        function, s.x, mask=s.mask, output_step=None if s.aligned else 0,
        block=max(round(audit.block * s.block_scale), 1), seed=audit.seed,
    )  # fmt: skip


# ----------------------------------------------------------------------- training and inference

INFERENCE = {
    "expects": "inference draws no random numbers",
    "holds": "inference draws no random numbers that matter",
    "advice": "Call Dropout and noise layers without training=True; a layer of your own must look "
    "at `training`. Until then nothing else can be told.",
}


def inference(audit: Audit) -> Finding:
    """The same call with other random numbers."""
    s = audit.subject
    if s.memory is None:
        return skipped("inference", INFERENCE["expects"], NO_TRAINING)
    few = s.few
    expected = s(rows=few)
    worst = s.worst(s(rows=few, seeds=False), expected, few, exact=True)
    text = INFERENCE | {"fails": f"inference is random{_random_layers(s)}"}
    return audit.judged("inference", worst, text, exact=True)


TRAINING = {
    "expects": "training sees of a row's company and future what inference sees",
    "advice": "BatchNormalization takes its mean over the batch and over time, padding and later "
    "steps included, and at inference uses others: take LayerNormalization, or leave this check "
    'out, skip=("training",), if you accept that.',
}


def training(audit: Audit) -> Finding:
    """What a row's answer depends on in training and not at inference."""
    s = audit.subject
    expects = TRAINING["expects"]
    if s.memory is None:
        return skipped("training", expects, NO_TRAINING)
    few = s.few
    if len(few) < 2:
        return skipped("training", expects, ONE_ROW)
    first, again = s(rows=few, training=True), s(rows=few, training=True)
    if s.worst(again, first, few, exact=True).size > s.tolerance:
        return skipped("training", expects, "a call in training cannot be repeated by its seeds")
    worst, what = s.worst(first, first, few), ""
    if not audit.broken("rows"):
        half, company = _other_company(few)
        found = s(rows=company, training=True)[: len(half)]
        worst = s.worst(found, first[: len(half)], half, real=s.real_outputs(half))
        what = "a row's answer depends on the other rows of its batch"
    if audit.causal and s.aligned and not audit.broken("look_ahead"):
        ahead = max(_futures(s, first, training=True), key=_size)
        if ahead.size > worst.size:
            worst, what = ahead, "later inputs change earlier outputs"
    moved = s.worst(first, s.few_y, few, real=s.real_outputs(few))
    holds = "training sees no more than inference"
    if moved.size > s.tolerance:
        holds += ", though its answers differ, as with dropout"
    return audit.judged("training", worst, TRAINING | {"holds": holds, "fails": f"here {what}"})


def _random_layers(s: ModelUnderTest) -> str:
    """Those that draw random numbers at inference, by their generators."""
    before = {id(one): value for one, value in s.memory.read(s.memory.seeds)}
    s(rows=s.few)
    drawn = {id(one) for one, v in s.memory.read(s.memory.seeds) if (v != before[id(one)]).any()}
    names = {
        layer.name
        for layer in flatten_layers(s.model)
        if id(getattr(getattr(layer, "seed_generator", None), "state", None)) in drawn
    }
    return f": {', '.join(sorted(names))}" if names else ""


def _other_company(few: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Some rows, and those in a batch as large as before with copies of themselves."""
    half = few[: max(len(few) // 2, 1)]
    return half, np.concatenate([half, np.resize(half[::-1], len(few) - len(half))])


def _size(example: Example) -> float:
    return example.size


CHECKS = {
    "repeats": repeats,
    "inference": inference,
    "state": state,
    "rows": rows,
    "padding": padding,
    "look_ahead": look_ahead,
    "steps": steps,
    "training": training,
    "past": past,
}
EXPECTS = {
    "state": STATE["expects"],
    "rows": ROWS["expects"],
    "padding": PADDING["expects"],
    "look_ahead": LOOK_AHEAD["expects"],
    "steps": STEPS["expects"],
    "inference": INFERENCE["expects"],
    "training": TRAINING["expects"],
    "past": "no budget was declared",
}
