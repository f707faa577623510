"""Inputs that every endpoint of an artifact is verified on."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

import keras
import numpy as np
from keras import ops

from keras_seqzoo.exporting.endpoints import Endpoint
from keras_seqzoo.inspection.model_graph import decoder_of
from keras_seqzoo.inspection.sample_inputs import Sample, fixed_lengths, sample_inputs

# What an encoder-decoder is asked to say: tokens at most, or readings, rows and steps of sources.
_ANSWER = 7


_ROWS = 3


_STEPS = 7


def endpoint_samples(model: keras.Model, known: Mapping[str, Endpoint]) -> Iterator[Sample]:
    """Random input for each of the endpoints, `known` by name."""
    network = decoder_of(model)
    if network is None:
        for sample in sample_inputs(model):
            yield sample
            # What rounds otherwise may grow from step to step, with some weights.
            few = sample.batch <= _ROWS and (sample.steps <= _STEPS or fixed_lengths(model))
            if "step" in known and few:
                yield dataclasses.replace(sample, endpoint="step", over_time=True)
        return
    for sample in sample_inputs(network):
        yield sample
        if sample.padding == "left" or sample.batch > _ROWS or sample.steps > _STEPS:
            continue  # decoding takes its time where nothing is compiled
        source = {"source": sample.inputs["source"]}
        state = known["encode"].function(ops.convert_to_tensor(source["source"]))
        state = {name: ops.convert_to_numpy(tensor) for name, tensor in state.items()}
        first = {"before": sample.inputs["target"][:, 0]}
        length = {"max_length": np.array(_ANSWER, np.int32)}
        given = {"encode": source, "step": first | state}
        given |= dict.fromkeys(("generate_greedy", "generate_beam"), source | length)
        for name, inputs in given.items():
            if name in known:
                yield dataclasses.replace(sample, inputs=inputs, endpoint=name)
    for name in ("generate_text", "generate"):
        if name not in known:
            continue
        for sample in sample_inputs(model):
            if sample.batch <= _ROWS:
                yield dataclasses.replace(sample, endpoint=name)
