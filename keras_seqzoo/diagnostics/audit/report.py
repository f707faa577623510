"""What an audit says: a verdict for each check, as a table, as JSON, as JUnit's XML."""

from __future__ import annotations

import dataclasses
import json
import textwrap
from typing import Any
from xml.etree import ElementTree

from keras_seqzoo.errors import SeqZooError
from keras_seqzoo.utils.argument_validation import unknown_name_message
from keras_seqzoo.utils.serialization import to_json_values


class AuditFailure(SeqZooError, AssertionError):
    """An expectation of an audit does not hold."""


@dataclasses.dataclass(frozen=True)
class Example:
    """Where an answer is not what it ought to be, at its worst.

    Attributes:
        row: int, row of `x`.
        step: int, step of the output, or None if it has none.
        feature: int, number of the output.
        size: float, the difference in units of round-off.
        expected: float, what the answer ought to be.
        found: float, what it is.
    """

    row: int
    step: int | None
    feature: int
    size: float
    expected: float
    found: float

    def __str__(self) -> str:
        step = "" if self.step is None else f"step {self.step}, "
        return (
            f"row {self.row}, {step}output {self.feature}: {self.found:.6g} instead of "
            f"{self.expected:.6g}, {self.size:.3g} round-off units"
        )


@dataclasses.dataclass(frozen=True)
class Finding:
    """One check.

    Attributes:
        check: str, its name.
        verdict: "holds", "fails", "shown" (nothing was expected) or "skipped".
        expectation: str, what was expected, or would be.
        found: str, what was found, or why the check was skipped.
        advice: str, what to do, "" if there is nothing to be done.
        example: `Example`, the worst difference, or None.
        declared: bool, whether an argument asked for it: what was asked for must not be skipped.
        measured: dict of figures, those of `past`.
    """

    check: str
    verdict: str
    expectation: str
    found: str
    advice: str = ""
    example: Example | None = None
    declared: bool = False
    measured: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether nothing that was expected is broken, or declared and not shown."""
        return self.verdict != "fails" and not (self.declared and self.verdict == "skipped")


@dataclasses.dataclass(frozen=True)
class AuditReport:
    """What `audit` found. `str(report)` is a table, `report["rows"]` one `Finding`.

    Attributes:
        name: str, of the model.
        findings: tuple of `Finding`, in the order of the checks.
        tolerance: float, differences of so many units of round-off count as none.
        round_off: float, the largest unit, as a share of the largest output: the model's
            precision, or what it makes of the round-off of its input.
        seed: int.
    """

    name: str
    findings: tuple[Finding, ...]
    tolerance: float
    round_off: float
    seed: int

    @property
    def passed(self) -> bool:
        """Whether every expectation holds."""
        return all(one.passed for one in self.findings)

    @property
    def failures(self) -> tuple[Finding, ...]:
        """The findings that do not hold."""
        return tuple(one for one in self.findings if not one.passed)

    def __getitem__(self, check: str) -> Finding:
        for one in self.findings:
            if one.check == check:
                return one
        raise KeyError(unknown_name_message("check", check, [one.check for one in self.findings]))

    def check(self) -> AuditReport:
        """The report itself, for a line of a test.

        Raises:
            AuditFailure: an `AssertionError` with the table, if an expectation fails.
        """
        if not self.passed:
            raise AuditFailure(str(self))
        return self

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data, for JSON; nan and infinity become None."""
        findings = []
        for one in self.findings:
            plain = dataclasses.asdict(one) | {"passed": one.passed}
            for key in ("example", "measured"):
                plain[key] = plain[key] and {k: to_json_values(v) for k, v in plain[key].items()}
            findings.append(plain)
        return {
            "name": self.name,
            "passed": self.passed,
            "findings": findings,
            "tolerance": self.tolerance,
            "round_off": to_json_values(self.round_off),
            "seed": self.seed,
        }

    def to_json(self) -> str:
        """The report as JSON."""
        return json.dumps(self.to_dict(), indent=2) + "\n"

    def to_junit(self) -> str:
        """The report as JUnit's XML, a test case for each check, for what runs tests elsewhere."""
        suite = ElementTree.Element(
            "testsuite",
            name=f"keras-seqzoo audit {self.name}",
            tests=str(len(self.findings)),
            failures=str(len(self.failures)),
            errors="0",
            skipped=str(sum(one.verdict == "skipped" and one.passed for one in self.findings)),
        )
        for one in self.findings:
            case = ElementTree.SubElement(
                suite, "testcase", classname=f"audit.{self.name}", name=one.check
            )
            said = _described(one)
            if not one.passed:
                ElementTree.SubElement(case, "failure", message=one.found).text = said
            elif one.verdict == "skipped":
                ElementTree.SubElement(case, "skipped", message=one.found)
            else:
                ElementTree.SubElement(case, "system-out").text = said
        ElementTree.indent(suite)
        return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"

    def __str__(self) -> str:
        failed = ", ".join(one.check for one in self.failures)
        head = f"fails: {failed}." if failed else "every expectation holds."
        lines = [f"Audit of {self.name!r}: {head}", "", f"  {'check':<11} {'verdict':<8} found"]
        for one in self.findings:
            verdict = one.verdict if one.passed or one.verdict == "fails" else "MISSING"
            begin = f"  {one.check:<11} {verdict.upper() if not one.passed else verdict:<8} "
            lines += textwrap.wrap(
                _described(one), 100, initial_indent=begin, subsequent_indent=" " * len(begin)
            )
        return "\n".join(lines)


def _described(one: Finding) -> str:
    """What was found, where, and what to do."""
    parts = [one.found[:1].upper() + one.found[1:]]
    if one.example is not None and one.example.size > 0 and one.verdict in ("fails", "shown"):
        parts.append(f"worst at {one.example}")
    text = "; ".join(parts) + "."
    if not one.passed:
        text = f"Expected: {one.expectation}. {text} {one.advice}".rstrip()
    return text
