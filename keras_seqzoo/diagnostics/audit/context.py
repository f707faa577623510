"""Context of an audit: the model under test, the declared expectations, and findings."""

from __future__ import annotations

import dataclasses

from keras_seqzoo.diagnostics.audit.comparison import Counterexample
from keras_seqzoo.diagnostics.audit.model_under_test import ModelUnderTest
from keras_seqzoo.diagnostics.audit.report import Finding

# Reasons to skip a check.
NO_TIME_INPUTS = (
    "which inputs share the output's time axis is not known: declare them with along=, their names "
    "or positions"
)
NO_STEPS = "the output has no steps: it is one output for the whole sequence"
NOT_ALIGNED = "the output has other steps than the input"
ONE_ROW = "`x` has one row only"
NO_TRAINING_MODE = "a function has no training mode"


@dataclasses.dataclass(frozen=True)
class CheckText:
    """What a check reports.

    Attributes:
        expectation: str, what is expected.
        holds: str, result if there is no difference.
        fails: str, result if there is one.
        advice: str, what to do if it fails.
    """

    expectation: str
    advice: str
    holds: str = ""
    fails: str = ""


@dataclasses.dataclass
class AuditContext:
    """What the checks share.

    Attributes:
        model: `ModelUnderTest`.
        causal: bool, whether no output may depend on a later input.
        max_leakage: float or None.
        max_horizon: int or None.
        sides: "left", "right" or "both", where padding may be.
        block: int, as in `leakage`.
        seed: int.
        counterexamples: dict from the names of earlier checks to their largest differences.
    """

    model: ModelUnderTest
    causal: bool
    max_leakage: float | None
    max_horizon: int | None
    sides: str
    block: int
    seed: int
    counterexamples: dict[str, Counterexample] = dataclasses.field(default_factory=dict)

    def failed(self, check: str) -> bool:
        """Whether an earlier check has a difference above the tolerance."""
        example = self.counterexamples.get(check)
        return example is not None and example.size > self.model.tolerance

    def finding(
        self,
        check: str,
        example: Counterexample,
        text: CheckText,
        *,
        expected: bool = True,
        declared: bool = False,
        exact: bool = False,
    ) -> Finding:
        """The finding of a check with this largest difference.

        Args:
            check: str, its name.
            example: the largest difference.
            text: `CheckText`.
            expected: bool, whether a difference is a failure.
            declared: bool, whether an argument declared the expectation.
            exact: bool, whether identical calls were compared, which detects any difference.
        """
        self.counterexamples[check] = example
        failed = self.failed(check)
        verdict = "shown" if not expected else "fails" if failed else "holds"
        undetectable = "" if failed or exact else self.model.undetectable_reason()
        if undetectable:
            return skipped(check, text.expectation, undetectable, declared=declared)
        result = text.fails if failed else text.holds
        if not failed and example.size > 0:
            result += f" (differences of up to {example.size:.2g} round-off units)"
        advice = text.advice if verdict == "fails" else ""
        shown = example if failed else None
        return Finding(check, verdict, text.expectation, result, advice, shown, declared)


def skipped(check: str, expectation: str, reason: str, *, declared: bool = False) -> Finding:
    """The finding of a check that cannot be made."""
    return Finding(check, "skipped", expectation, reason, "", None, declared)


def size(example: Counterexample) -> float:
    """Sort key for the largest difference."""
    return example.size
