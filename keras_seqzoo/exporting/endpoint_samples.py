"""Random inputs on which the endpoints of an artifact are verified."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
from keras import ops

from keras_seqzoo.exporting.plan import ExportPlan
from keras_seqzoo.inspection.sample_inputs import Sample, fixed_lengths, sample_inputs

# Limits of samples for loops over time, which are slow where nothing is compiled, and in which
# round-off may grow from step to step.
_MAX_BATCH, _MAX_STEPS = 3, 7
_MAX_LENGTH = 7  # of what a decoder generates


def endpoint_samples(plan: ExportPlan) -> Iterator[Sample]:
    """Yields random inputs for the endpoints of a plan.

    Args:
        plan: `ExportPlan`.
    """
    fixed_length = bool(fixed_lengths(plan.model))
    for sample in sample_inputs(plan.serving_model):
        yield sample
        if sample.batch > _MAX_BATCH:
            continue
        short = sample.steps <= _MAX_STEPS
        if plan.decoder is not None and short:
            yield from _decoding_samples(plan, sample)
        if plan.streamer is not None and "step" in plan.endpoints and (short or fixed_length):
            yield dataclasses.replace(sample, endpoint="step", over_time=True)
    for name in ("generate_text", "generate"):
        if name in plan.endpoints:
            for sample in sample_inputs(plan.model):
                if sample.batch <= _MAX_BATCH:
                    yield dataclasses.replace(sample, endpoint=name)


def _decoding_samples(plan: ExportPlan, sample: Sample) -> Iterator[Sample]:
    """Inputs for the endpoints of an encoder-decoder, from one for "serve"."""
    if sample.padding == "left":
        return
    source = {"source": sample.inputs["source"]}
    state = plan.endpoints["encode"].function(ops.convert_to_tensor(source["source"]))
    state = {name: np.asarray(ops.convert_to_numpy(tensor)) for name, tensor in state.items()}
    previous = {"previous": sample.inputs["target"][:, 0]}
    max_length = {"max_length": np.array(_MAX_LENGTH, np.int32)}
    inputs = {"encode": source, "step": previous | state}
    inputs |= dict.fromkeys(("generate_greedy", "generate_beam"), source | max_length)
    for name, arrays in inputs.items():
        if name in plan.endpoints:
            yield dataclasses.replace(sample, inputs=arrays, endpoint=name)
