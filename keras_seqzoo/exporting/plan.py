"""The plan of an export: the decoder, the streamer and the endpoints of a model, found once."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping

import keras

from keras_seqzoo.errors import ArgumentError
from keras_seqzoo.exporting.endpoints import Endpoint, build_endpoints
from keras_seqzoo.inspection.model_graph import decoder_of, output_of, stateful_layers
from keras_seqzoo.layers import EncoderDecoderModel
from keras_seqzoo.streaming import CannotStep, Streamer, stream
from keras_seqzoo.utils.argument_validation import argument_message


@dataclasses.dataclass(frozen=True)
class ExportPlan:
    """What an artifact is made of; `export` passes it to each of its stages.

    Attributes:
        model: `keras.Model`.
        decoder: the encoder-decoder that `model` is or contains; None of other models.
        streamer: the `Streamer` of a causal model; None of other models.
        endpoints: mapping of name to `Endpoint`, those of the artifact; "serve" is the first.
        left_out: mapping of name to str, endpoints that the format does not support, and why.
    """

    model: keras.Model
    decoder: EncoderDecoderModel | None
    streamer: Streamer | None
    endpoints: Mapping[str, Endpoint]
    left_out: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @classmethod
    def for_model(cls, model: keras.Model) -> ExportPlan:
        """Finds the parts of a model and builds all its endpoints.

        Args:
            model: a built `keras.Model` that is not stateful.

        Raises:
            ArgumentError: if the model cannot be exported.
        """
        if not isinstance(model, keras.Model) or not getattr(model, "inputs", None):
            expected = "a built keras.Model with known inputs"
            raise ArgumentError(argument_message("model", expected, type(model).__name__))
        decoder, stateful = decoder_of(model), stateful_layers(model)
        if decoder is None and len(model.outputs) != 1 and not isinstance(output_of(model), dict):
            raise ArgumentError(
                "`model` must have one output, or a dict of outputs, so that each has a name. "
                f"Received: {len(model.outputs)} outputs without names."
            )
        if stateful:
            raise ArgumentError(
                "`model` must not be stateful: an artifact would share one client's state with "
                f"all. Received: {model.name!r} with stateful layers {', '.join(stateful)}. "
                "Rebuild it with stateful=False and set its weights: its artifact then has "
                "`initial_state` and `step`, with which each client keeps its own state."
            )
        streamer = None
        if decoder is None:
            with contextlib.suppress(CannotStep):  # any other exception is an error, and is raised
                streamer = stream(model)
        return cls(model, decoder, streamer, build_endpoints(model, decoder, streamer))

    @property
    def serving_model(self) -> keras.Model:
        """The model that the endpoint "serve" calls."""
        return self.model if self.decoder is None else self.decoder

    def in_present_precision(self) -> ExportPlan:
        """The same plan, with the dtypes of states that the layers' dtype policies now imply."""
        streamer = None if self.streamer is None else Streamer(self.model)
        endpoints = build_endpoints(self.model, self.decoder, streamer)
        endpoints = {name: endpoints[name] for name in self.endpoints}
        return dataclasses.replace(self, streamer=streamer, endpoints=endpoints)
