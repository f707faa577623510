"""Assertions for the tests of projects that build sequence models."""

from __future__ import annotations

from typing import Any

from keras_seqzoo.diagnostics import AuditReport, audit


def assert_audit(model: Any, x: Any, **expectations: Any) -> AuditReport:
    """Assert that a model passes an audit; the assertion error shows the table of findings.

    Args:
        model: see `keras_seqzoo.audit`.
        x: array of sequences, see `keras_seqzoo.audit`.
        **expectations: arguments of `keras_seqzoo.audit`: causal, max_leakage, skip, ...

    Returns:
        The `AuditReport`.

    Raises:
        AuditFailure: an `AssertionError`, if an expectation fails.

    Example:

    >>> import keras_seqzoo as zoo
    >>> from keras_seqzoo.testing import assert_audit
    >>> x = np.random.default_rng(0).normal(size=(32, 20, 3))
    >>> report = assert_audit(lambda x: x[..., :1] ** 2, x, causal=True, max_leakage=0.01)
    """
    __tracebackhide__ = True  # pytest then reports the line of the test
    return audit(model, x, **expectations).check()
