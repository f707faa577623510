"""Checks that the output of a row does not depend on other rows, at inference and in training."""

from __future__ import annotations

import dataclasses

import numpy as np

from keras_seqzoo.diagnostics.audit.context import (
    NO_TRAINING_MODE,
    ONE_ROW,
    AuditContext,
    CheckText,
    size,
    skipped,
)
from keras_seqzoo.diagnostics.audit.report import Finding
from keras_seqzoo.diagnostics.audit.time_dependence import largest_look_ahead

ROWS = CheckText(
    expectation="the output of a row depends on that row alone",
    holds="the output of a row is the same alone, among other rows and in another order",
    fails="the output of a row depends on the other rows of its batch",
    advice="Something is computed over the batch: a mean, a BatchNormalization called with "
    "training=True, a softmax or a flip on axis 0. Compute it over features instead, or from "
    "statistics fixed in training.",
)
TRAINING = CheckText(
    expectation="training uses no other rows or later steps that inference does not use",
    advice="BatchNormalization averages over the batch and over time, padding and later steps "
    "included, and uses other statistics at inference: use LayerNormalization, or skip this check, "
    'skip=("training",), if you accept that.',
)


def check_rows(context: AuditContext) -> Finding:
    """Compares rows in another order, among other rows and alone."""
    model, subset = context.model, context.model.subset
    if len(subset) < 2:
        return skipped("rows", ROWS.expectation, ONE_ROW)
    half, mixed = _among_other_rows(subset)
    batches = [
        (np.roll(subset[::-1], 1), slice(None)),
        (mixed, slice(len(half))),
        *((subset[at : at + 1], slice(None)) for at in {0, len(subset) // 2, len(subset) - 1}),
    ]
    examples = [
        model.compare(
            model.outputs[subset], model.subset_outputs, subset, real=model.real_outputs(subset)
        )
    ]
    for batch, compared in batches:
        actual, rows = model(rows=batch)[compared], batch[compared]
        expected = model.subset_outputs[np.searchsorted(subset, rows)]
        examples.append(model.compare(actual, expected, rows, real=model.real_outputs(rows)))
    return context.finding("rows", max(examples, key=size), ROWS)


def check_training(context: AuditContext) -> Finding:
    """Compares training calls among other rows, and with other later steps of a causal model."""
    model, subset, expectation = context.model, context.model.subset, TRAINING.expectation
    if model.state is None:
        return skipped("training", expectation, NO_TRAINING_MODE)
    if len(subset) < 2:
        return skipped("training", expectation, ONE_ROW)
    first, second = (model(rows=subset, training=True) for _ in range(2))
    if model.compare(second, first, subset, exact=True).size > model.tolerance:
        return skipped("training", expectation, "seeds do not make a training call repeatable")
    example, fails = model.compare(first, first, subset), ""
    if not context.failed("rows"):
        half, mixed = _among_other_rows(subset)
        actual = model(rows=mixed, training=True)[: len(half)]
        example = model.compare(actual, first[: len(half)], half, real=model.real_outputs(half))
        fails = "the output of a row depends on the other rows of its batch"
    if context.causal and model.aligned and not context.failed("look_ahead"):
        ahead = largest_look_ahead(model, first, training=True)
        if ahead.size > example.size:
            example, fails = ahead, "later inputs change earlier outputs"
    change = model.compare(first, model.subset_outputs, subset, real=model.real_outputs(subset))
    holds = "training uses no more than inference"
    if change.size > model.tolerance:
        holds += ", though its outputs differ, as with dropout"
    text = dataclasses.replace(TRAINING, holds=holds, fails=f"in training {fails}")
    return context.finding("training", example, text)


def _among_other_rows(subset: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Half of the rows, and a batch of the original size that starts with them."""
    half = subset[: max(len(subset) // 2, 1)]
    return half, np.concatenate([half, np.resize(half[::-1], len(subset) - len(half))])
