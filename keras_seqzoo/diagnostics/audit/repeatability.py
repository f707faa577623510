"""Checks that calls repeat: no hidden randomness and no hidden state."""

from __future__ import annotations

import dataclasses

from keras_seqzoo.diagnostics.audit.context import (
    NO_TRAINING_MODE,
    AuditContext,
    CheckText,
    skipped,
)
from keras_seqzoo.diagnostics.audit.model_under_test import ModelUnderTest
from keras_seqzoo.diagnostics.audit.report import Finding
from keras_seqzoo.diagnostics.audit.state_variables import StateVariables
from keras_seqzoo.inspection.model_graph import flatten_layers

REPEATS = CheckText(
    expectation="the same call gives the same output",
    holds="the same call gives the same output",
    fails="the same call, from the same state and seeds, gives another output",
    advice="The difference is in no Keras variable: draw random numbers from a "
    "keras.random.SeedGenerator, and keep state in variables instead of attributes. Until then no "
    "other check is possible.",
)
INFERENCE = CheckText(
    expectation="inference draws no random numbers",
    holds="inference does not depend on random numbers",
    advice="Call Dropout and noise layers without training=True; custom layers must respect "
    "`training`. Until then no other check is possible.",
)
STATE = CheckText(
    expectation="a call does not depend on earlier calls, except by state that reset_state resets",
    holds="no call depends on earlier calls",
    fails="an output depends on earlier calls",
    advice="Make the state an input and an output, or give the layer that keeps it stateful=True "
    "and a reset_state that restores its initial value.",
)


def check_repeats(context: AuditContext) -> Finding:
    """Compares two identical calls."""
    model, subset = context.model, context.model.subset
    first, second = model(rows=subset), model(rows=subset)
    example = model.compare(second, first, subset, exact=True)
    return context.finding("repeats", example, REPEATS, exact=True)


def check_inference(context: AuditContext) -> Finding:
    """Compares two calls with different random seeds."""
    model, subset = context.model, context.model.subset
    if model.state is None:
        return skipped("inference", INFERENCE.expectation, NO_TRAINING_MODE)
    expected = model(rows=subset)
    example = model.compare(model(rows=subset, reset_seeds=False), expected, subset, exact=True)
    layers = _random_layers(model, model.state)
    names = f": {', '.join(layers)}" if layers else ""
    text = dataclasses.replace(INFERENCE, fails=f"inference is random{names}")
    return context.finding("inference", example, text, exact=True)


def check_state(context: AuditContext) -> Finding:
    """Compares a call with the same call after another one, and after a reset."""
    model, subset = context.model, context.model.subset
    other = subset[::-1]
    expected = model(rows=subset)
    model(rows=other, keep_state=True)
    actual = model(rows=subset, keep_state=True)
    example = model.compare(actual, expected, subset, exact=True)
    stateful = model.state.stateful if model.state is not None else []
    if example.size <= model.tolerance or model.state is None or not stateful:
        return context.finding("state", example, STATE, exact=True)
    names = ", ".join(layer.name for layer in stateful)
    after_reset = []
    for _ in range(2):
        model.state.reset()
        after_reset.append(model(rows=subset, keep_state=True))
        model(rows=other, keep_state=True)
    text = dataclasses.replace(
        STATE,
        holds=f"{names} keep state between calls, and reset_state resets it",
        fails=f"{names} keep state between calls, and reset_state does not reset it",
    )
    first, second = after_reset
    example = model.compare(second, first, subset, exact=True)
    return context.finding("state", example, text, exact=True)


def _random_layers(model: ModelUnderTest, state: StateVariables) -> list[str]:
    """Names of the layers whose random generators advance at inference."""
    before = {id(variable): value for variable, value in state.read(state.seeds)}
    model(rows=model.subset)
    advanced = {
        id(variable)
        for variable, value in state.read(state.seeds)
        if (value != before[id(variable)]).any()
    }
    return sorted(
        {
            layer.name
            for layer in flatten_layers(model.model)
            if id(getattr(getattr(layer, "seed_generator", None), "state", None)) in advanced
        }
    )
