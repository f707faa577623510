"""Encoder-decoders that decode by themselves, with their vocabularies inside: texts to texts."""

from __future__ import annotations

from typing import Any

import keras

from keras_seqzoo import layers
from keras_seqzoo.data import ParallelEncoding, Vocabulary
from keras_seqzoo.layers.masking import mask_value_of

ANSWERS, NUMBERS = "answers", "token_numbers"


def with_answers(
    model: layers.EncoderDecoderModel, encoding: ParallelEncoding, **decoding: Any
) -> keras.Model:
    """What `with_names` does with an encoder-decoder.

    Args:
        model: `layers.EncoderDecoderModel`.
        encoding: `ParallelEncoding`.
        **decoding: of `layers.Answers`.
    """
    if isinstance(encoding.source, Vocabulary):
        inputs = keras.Input((), dtype="string", name="sentences")
        source = _numbers(inputs, encoding)
    else:
        inputs = source = keras.Input(model.inputs[0].shape[1:], name="readings")
    decoding = {"max_length": encoding.max_length} | decoding
    said = layers.Answers(model, name=ANSWERS, **decoding)(source)
    if not encoding.says_tokens:
        return keras.Model(inputs, said, name=model.name)
    tokens, scores = said
    names = layers.ClassNames(["", "[UNK]", *encoding.target.tokens], name="names")(tokens)
    separator = " " if encoding.target_units == "tokens" else ""
    texts = layers.JoinTokens(separator, name="texts")(names)
    return keras.Model(inputs, {"targets": texts, "scores": scores}, name=model.name)


def answers_layer(model: keras.Model) -> layers.Answers | None:
    """The layer that decodes in a model that `with_answers` gave; None in others."""
    found = [one for one in getattr(model, "layers", ()) if isinstance(one, layers.Answers)]
    return found[0] if found else None


def decodes(model: keras.Model) -> bool:
    """Whether an encoder-decoder inside a model answers by itself, as `with_names` lets it.

    Args:
        model: `keras.Model`, or anything else.
    """
    return answers_layer(model) is not None


def encoding_of_answers(model: keras.Model) -> ParallelEncoding:
    """The encoding inside a model that `with_answers` gave."""
    known = {layer.name: layer for layer in model.layers}
    network = known[ANSWERS].network
    source: Vocabulary | int = network.inputs[0].shape[-1]
    masked = {}
    if NUMBERS in known:
        source = Vocabulary(known[NUMBERS].get_vocabulary()[2:])
    else:
        masked = {"mask_value": mask_value_of(network)}
    target: Vocabulary | int = network.output_shape[-1]
    if "names" in known:
        target = Vocabulary(known["names"].names[2:])
    joined = known["texts"].separator if "texts" in known else " "
    return ParallelEncoding(
        source,
        target,
        "characters" if "characters" in known else "tokens",
        "tokens" if joined else "characters",
        known[ANSWERS].max_length,
        **masked,
    )


def _numbers(sentences, encoding: ParallelEncoding):
    """The numbers of the tokens or characters of sentences, 0 behind the last."""
    if encoding.source_units == "characters":
        tokens = layers.SplitCharacters(name="characters")(sentences)
    else:
        tokens = layers.SplitTokens(name="tokens")(sentences)
    known = list(encoding.source.tokens)
    lookup = keras.layers.StringLookup(vocabulary=known, mask_token="", name=NUMBERS)
    return keras.ops.cast(lookup(tokens), "int32")
