"""Report of an audit: a verdict for each check, as a table, as JSON, as JUnit XML."""

from __future__ import annotations

import dataclasses
import json
import textwrap
from typing import Any
from xml.etree import ElementTree

from keras_seqzoo.diagnostics.audit.comparison import Counterexample
from keras_seqzoo.errors import SeqZooError
from keras_seqzoo.utils.argument_validation import unknown_name_message
from keras_seqzoo.utils.serialization import to_json_values


class AuditFailure(SeqZooError, AssertionError):
    """An expectation of an audit fails."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """Result of one check.

    Attributes:
        check: str, its name.
        verdict: "holds", "fails", "shown" (measured, without an expectation) or "skipped".
        expectation: str, what is or would be expected.
        result: str, what was measured, or why the check was skipped.
        advice: str, what to do, "" if there is nothing to do.
        example: `Counterexample`, the largest difference, or None.
        declared: bool, whether the expectation was declared by an argument. A declared check must
            not be skipped.
        measured: dict of figures, those of check "past".
    """

    check: str
    verdict: str
    expectation: str
    result: str
    advice: str = ""
    example: Counterexample | None = None
    declared: bool = False
    measured: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether the check neither fails nor is declared and skipped."""
        return self.verdict != "fails" and not (self.declared and self.verdict == "skipped")


@dataclasses.dataclass(frozen=True)
class AuditReport:
    """Result of `audit`: the findings of all checks.

    `str(report)` is a table, `report["rows"]` one `Finding`, `report.check()` a line of a test.

    Attributes:
        name: str, of the model.
        findings: tuple of `Finding`, in the order of the checks.
        tolerance: float, differences up to so many units of round-off count as none.
        round_off: float, the largest unit of round-off, relative to the largest output: the model's
            precision, or the effect of its input's round-off.
        seed: int, argument of `audit`.
    """

    name: str
    findings: tuple[Finding, ...]
    tolerance: float
    round_off: float
    seed: int

    @property
    def passed(self) -> bool:
        """Whether every expectation holds."""
        return all(finding.passed for finding in self.findings)

    @property
    def failures(self) -> tuple[Finding, ...]:
        """The findings that did not pass."""
        return tuple(finding for finding in self.findings if not finding.passed)

    def __getitem__(self, check: str) -> Finding:
        for finding in self.findings:
            if finding.check == check:
                return finding
        names = [finding.check for finding in self.findings]
        raise KeyError(unknown_name_message("check", check, names))

    def check(self) -> AuditReport:
        """The report itself if every expectation holds.

        Raises:
            AuditFailure: an `AssertionError` with the table, if an expectation fails.
        """
        if not self.passed:
            raise AuditFailure(str(self))
        return self

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data for JSON; nan and infinity become None."""
        return {
            "name": self.name,
            "passed": self.passed,
            "findings": [_as_dict(finding) for finding in self.findings],
            "tolerance": self.tolerance,
            "round_off": to_json_values(self.round_off),
            "seed": self.seed,
        }

    def to_json(self) -> str:
        """The report as JSON."""
        return json.dumps(self.to_dict(), indent=2) + "\n"

    def to_junit(self) -> str:
        """The report as JUnit XML, with a test case for each check."""
        skipped = sum(finding.verdict == "skipped" and finding.passed for finding in self.findings)
        suite = ElementTree.Element(
            "testsuite",
            name=f"keras-seqzoo audit {self.name}",
            tests=str(len(self.findings)),
            failures=str(len(self.failures)),
            errors="0",
            skipped=str(skipped),
        )
        for finding in self.findings:
            case = ElementTree.SubElement(
                suite, "testcase", classname=f"audit.{self.name}", name=finding.check
            )
            text = _description(finding)
            if not finding.passed:
                ElementTree.SubElement(case, "failure", message=finding.result).text = text
            elif finding.verdict == "skipped":
                ElementTree.SubElement(case, "skipped", message=finding.result)
            else:
                ElementTree.SubElement(case, "system-out").text = text
        ElementTree.indent(suite)
        return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"

    def __str__(self) -> str:
        failed = ", ".join(finding.check for finding in self.failures)
        summary = f"fails: {failed}." if failed else "every expectation holds."
        lines = [f"Audit of {self.name!r}: {summary}", "", f"  {'check':<11} {'verdict':<8} result"]
        for finding in self.findings:
            verdict = finding.verdict
            if not finding.passed:
                verdict = "FAILS" if finding.verdict == "fails" else "MISSING"
            start = f"  {finding.check:<11} {verdict:<8} "
            lines += textwrap.wrap(
                _description(finding),
                100,
                initial_indent=start,
                subsequent_indent=" " * len(start),
            )
        return "\n".join(lines)


def _as_dict(finding: Finding) -> dict[str, Any]:
    fields: dict[str, Any] = dataclasses.asdict(finding) | {"passed": finding.passed}
    for key in ("example", "measured"):
        figures: dict[str, Any] | None = fields[key]
        if figures is not None:
            fields[key] = {name: to_json_values(value) for name, value in figures.items()}
    return fields


def _description(finding: Finding) -> str:
    """Result, largest difference, and advice, in one paragraph."""
    parts = [finding.result[:1].upper() + finding.result[1:]]
    example = finding.example
    if example is not None and example.size > 0 and finding.verdict in ("fails", "shown"):
        parts.append(f"worst at {example}")
    text = "; ".join(parts) + "."
    if not finding.passed:
        text = f"Expected: {finding.expectation}. {text} {finding.advice}".rstrip()
    return text
