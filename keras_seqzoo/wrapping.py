"""Models with their vocabularies inside: sentences in, the names of tags or labels out."""

from __future__ import annotations

from typing import Any

import keras

from keras_seqzoo import layers
from keras_seqzoo.data import PairPreprocessor, SequencePreprocessor, Vocabulary
from keras_seqzoo.data.sequence_preprocessor import MAX_CHARACTERS
from keras_seqzoo.errors import ArgumentError
from keras_seqzoo.inspection.model_graph import generator_layer
from keras_seqzoo.layers.masking import mask_value_of
from keras_seqzoo.utils.argument_validation import argument_message, check_instance

_NAMELESS = (
    "`model` must have the names of its classes inside, as `train` gives it. Received: {!r}."
)
ANSWERS = "answers"
NETWORK, NUMBERS, SPELLED = "network", "token_numbers", "character_numbers"


def end_to_end(
    model: keras.Model, preprocessor: SequencePreprocessor | PairPreprocessor, **decoding: Any
) -> keras.Model:
    """Puts the names that a model was trained with around it; of an encoder-decoder, what decodes.

    The result is saved and exported as any model; an artifact takes sentences and gives names with
    TensorFlow alone. Unknown words and characters count as "[UNK]", an empty sentence has no tags,
    of a token the first 24 characters are looked at, and there is no limit on the length of a
    sentence. A token with a blank in it is never met: a sentence is split there.

    Shapes: `(batch,)` sentences, tokens between blanks; or readings as the model takes them. Gives
        a dict: "tags" `(batch, time)` or "labels" `(batch,)`, string; and "probabilities" as
        the model gives them, unless it gives the numbers of tags itself. An encoder-decoder gives
        "targets" and "scores", `(batch,)`, the best answer of a beam and its log-probability; or,
        of readings, `(batch, max_length, features)` alone.
    Masking: a sentence ends with its last token; where others are longer, its tags are "".
    State: none.

    Args:
        model: a classifier, tagger or encoder-decoder, trained on batches of `preprocessor`.
        preprocessor: `keras_seqzoo.data.SequencePreprocessor` or `PairPreprocessor`.
        **decoding: of an encoder-decoder: max_length (default that of the preprocessor), num_beams
            (5), length_penalty (0); see `layers.SequenceGenerator`.

    Returns:
        A Functional `keras.Model`; `inner_model` it is `model`, with its weights.

    Raises:
        ArgumentError: if the model gives another number of classes.

    Example:

    >>> import keras_seqzoo as zoo
    >>> text = zoo.data.LabeledSequences([["play", "jazz"], ["stop"]], tags=[["O", "B-genre"], ["O"]])
    >>> preprocessor = zoo.data.SequencePreprocessor.from_data(text)
    >>> model = zoo.tasks.end_to_end(zoo.get("gru_tagger", **preprocessor.model_arguments()), preprocessor)
    >>> model(keras.ops.convert_to_tensor(["play jazz", "stop"]))["tags"].shape
    TensorShape([2, 2])
    """
    check_instance(keras.Model, model=model)
    check_instance((SequencePreprocessor, PairPreprocessor), preprocessor=preprocessor)
    if isinstance(preprocessor, PairPreprocessor):
        return generator_end_to_end(model, preprocessor, **decoding)
    if decoding:
        known = "nothing more for a model that does not decode"
        raise ArgumentError(argument_message("decoding", known, sorted(decoding)))
    classes = _classes(model)
    if classes != len(preprocessor.classes):
        raise ArgumentError(
            argument_message(
                "preprocessor", f"one of {classes} classes, as the model has", preprocessor.classes
            )
        )
    network = model if model.name == NETWORK else _renamed(model)
    if preprocessor.tokens is None:
        inputs = given = keras.Input(model.input_shape[1:], name="readings")
        mask = layers.step_mask(given, preprocessor.mask_value, name="real_steps")
    else:
        inputs = keras.Input((), dtype="string", name="sentences")
        tokens = layers.SplitTokens(name="tokens")(inputs)
        given = _numbers(tokens, preprocessor.tokens, NUMBERS)
        mask = layers.TokenMask(name="real_tokens")(given)
        if preprocessor.characters is not None:
            characters = layers.SplitCharacters(MAX_CHARACTERS, name="characters")(tokens)
            given = [given, _numbers(characters, preprocessor.characters, SPELLED)]
    answers = network(given)
    per_step = preprocessor.target == "tags"
    names = layers.ClassNames(preprocessor.classes, name="names")
    outputs = {preprocessor.target: names(answers, mask=mask if per_step else None)}
    if "float" in answers.dtype:
        outputs["probabilities"] = answers
    return keras.Model(inputs, outputs, name=model.name)


def is_end_to_end(model: keras.Model) -> bool:
    """Whether `end_to_end` gave a model.

    Args:
        model: `keras.Model`, or anything else.
    """
    if decodes(model):
        return True
    named = [layer for layer in getattr(model, "layers", ()) if layer.name == "names"]
    return any(isinstance(layer, layers.ClassNames) for layer in named)


def inner_model(model: keras.Model) -> keras.Model:
    """The network inside a model that `end_to_end` gave.

    Args:
        model: `keras.Model`.
    """
    if not is_end_to_end(model):
        raise ArgumentError(_NAMELESS.format(getattr(model, "name", type(model).__name__)))
    answers = generator_layer(model)
    return model.get_layer(NETWORK) if answers is None else answers.network


def preprocessor_of(model: keras.Model) -> SequencePreprocessor | PairPreprocessor:
    """The preprocessor inside a model that `end_to_end` gave.

    Args:
        model: `keras.Model`.

    Raises:
        ArgumentError: if it has no names inside.
    """
    if not is_end_to_end(model):
        raise ArgumentError(_NAMELESS.format(getattr(model, "name", type(model).__name__)))
    if decodes(model):
        return preprocessor_of_generator(model)
    known = {layer.name: layer for layer in model.layers}
    tokens, characters = (
        Vocabulary(known[name].get_vocabulary()[2:]) if name in known else None
        for name in (NUMBERS, SPELLED)
    )
    readings = {}
    if tokens is None:
        mask_value = mask_value_of(known[NETWORK])
        readings = {"features": model.input_shape[-1], "mask_value": mask_value}
    return SequencePreprocessor(
        next(iter(set(model.output) - {"probabilities"})),
        tuple(known["names"].names),
        tokens,
        characters,
        **readings,
    )


def _classes(model: keras.Model) -> int:
    """How many classes a model tells apart."""
    for layer in model.layers:
        if isinstance(layer, layers.LinearChainCRF):
            return layer.classes
    return model.output_shape[-1]


def _numbers(names, vocabulary: Vocabulary, name: str):
    """The numbers of tokens or characters, 0 for ""."""
    lookup = keras.layers.StringLookup(vocabulary=list(vocabulary.tokens), mask_token="", name=name)
    return lookup(names)


def _renamed(model: keras.Model) -> keras.Model:
    """The same layers and weights under the name by which it is found."""
    return type(model)(model.input, model.output, name=NETWORK)


def generator_end_to_end(
    model: layers.EncoderDecoderModel, preprocessor: PairPreprocessor, **decoding: Any
) -> keras.Model:
    """What `end_to_end` does with an encoder-decoder.

    Args:
        model: `layers.EncoderDecoderModel`.
        preprocessor: `PairPreprocessor`.
        **decoding: of `layers.SequenceGenerator`.
    """
    if isinstance(preprocessor.source, Vocabulary):
        inputs = keras.Input((), dtype="string", name="sentences")
        source = _source_ids(inputs, preprocessor)
    else:
        inputs = source = keras.Input(model.inputs[0].shape[1:], name="readings")
    decoding = {"max_length": preprocessor.max_length} | decoding
    said = layers.SequenceGenerator(model, name=ANSWERS, **decoding)(source)
    if not preprocessor.generates_tokens:
        return keras.Model(inputs, said, name=model.name)
    tokens, scores = said
    names = layers.ClassNames(["", "[UNK]", *preprocessor.target.tokens], name="names")(tokens)
    separator = " " if preprocessor.target_units == "tokens" else ""
    texts = layers.JoinTokens(separator, name="texts")(names)
    return keras.Model(inputs, {"targets": texts, "scores": scores}, name=model.name)


def decodes(model: keras.Model) -> bool:
    """Whether an encoder-decoder inside a model answers by itself, as `end_to_end` lets it.

    Args:
        model: `keras.Model`, or anything else.
    """
    return generator_layer(model) is not None


def preprocessor_of_generator(model: keras.Model) -> PairPreprocessor:
    """The preprocessor inside a model that `generator_end_to_end` gave."""
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
    return PairPreprocessor(
        source,
        target,
        "characters" if "characters" in known else "tokens",
        "tokens" if joined else "characters",
        known[ANSWERS].max_length,
        **masked,
    )


def _source_ids(sentences, preprocessor: PairPreprocessor):
    """The numbers of the tokens or characters of sentences, 0 behind the last."""
    if preprocessor.source_units == "characters":
        tokens = layers.SplitCharacters(name="characters")(sentences)
    else:
        tokens = layers.SplitTokens(name="tokens")(sentences)
    known = list(preprocessor.source.tokens)
    lookup = keras.layers.StringLookup(vocabulary=known, mask_token="", name=NUMBERS)
    return keras.ops.cast(lookup(tokens), "int32")
