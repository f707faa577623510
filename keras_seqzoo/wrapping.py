"""End-to-end models: preprocessing inside the graph, from strings or readings to labels or text."""

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

_NOT_END_TO_END = "`model` must be an end-to-end model, as `train` returns. Received: {!r}."
# Names of the layers from which the preprocessor is restored.
INNER_MODEL, GENERATOR, CLASS_NAMES = "inner_model", "generator", "class_names"
TOKEN_IDS, CHARACTER_IDS = "token_ids", "character_ids"


def end_to_end(
    model: keras.Model, preprocessor: SequencePreprocessor | PairPreprocessor, **decoding: Any
) -> keras.Model:
    """Wraps a model with its preprocessing: strings or raw readings in, labels or strings out.

    The result is saved and exported as any model; its artifact needs TensorFlow alone. Unknown
    tokens and characters become "[UNK]", an empty sentence has no tags, only the first 24
    characters of a token are used, and sentences may have any length. Sentences are split at
    spaces, so that a token with a space in it never occurs.

    Shapes: `(batch,)` sentences, tokens separated by spaces; or readings as the model takes them.
        Returns a dict: "tags" `(batch, time)` or "labels" `(batch,)`, string; and "probabilities"
        as the model outputs them, unless it outputs ids. An encoder-decoder returns "targets" and
        "scores", `(batch,)`, the best sequence of a beam search and its log-probability; one that
        generates readings returns `(batch, max_length, features)` alone.
    Masking: a sentence ends with its last token; the tags of padded steps are "".
    State: none kept between calls.

    Args:
        model: a classifier, tagger or encoder-decoder, trained on batches of `preprocessor`.
        preprocessor: `keras_seqzoo.data.SequencePreprocessor` or `PairPreprocessor`.
        **decoding: of an encoder-decoder: max_length (default that of the preprocessor), num_beams
            (5), length_penalty (0); see `layers.SequenceGenerator`.

    Returns:
        A Functional `keras.Model`, which contains `model` as its `inner_model`.

    Raises:
        ArgumentError: if the model and the preprocessor differ in the number of classes, or
            `decoding` is given for a model that is no encoder-decoder.

    Example:

    >>> import keras_seqzoo as zoo
    >>> sentences, tags = [["play", "jazz"], ["stop"]], [["O", "B-genre"], ["O"]]
    >>> text = zoo.data.LabeledSequences(sentences, tags=tags)
    >>> preprocessor = zoo.data.SequencePreprocessor.from_data(text)
    >>> tagger = zoo.get("gru_tagger", **preprocessor.model_arguments())
    >>> model = zoo.tasks.end_to_end(tagger, preprocessor)
    >>> model(keras.ops.convert_to_tensor(["play jazz", "stop"]))["tags"].shape
    TensorShape([2, 2])
    """
    check_instance(keras.Model, model=model)
    check_instance((SequencePreprocessor, PairPreprocessor), preprocessor=preprocessor)
    if isinstance(preprocessor, PairPreprocessor):
        return generator_end_to_end(model, preprocessor, **decoding)
    if decoding:
        expected = "left out for a model that is no encoder-decoder"
        raise ArgumentError(argument_message("decoding", expected, sorted(decoding)))
    classes = _class_count(model)
    if classes != len(preprocessor.classes):
        expected = f"one of {classes} classes, as the model has"
        raise ArgumentError(argument_message("preprocessor", expected, preprocessor.classes))
    inner = model if model.name == INNER_MODEL else _renamed(model)
    if preprocessor.tokens is None:
        inputs = inner_inputs = keras.Input(model.input_shape[1:], name="readings")
        mask = layers.step_mask(inputs, preprocessor.mask_value, name="real_steps")
    else:
        inputs = keras.Input((), dtype="string", name="sentences")
        tokens = layers.SplitTokens(name="tokens")(inputs)
        inner_inputs = _lookup(preprocessor.tokens, TOKEN_IDS)(tokens)
        mask = layers.TokenMask(name="real_tokens")(inner_inputs)
        if preprocessor.characters is not None:
            characters = layers.SplitCharacters(MAX_CHARACTERS, name="characters")(tokens)
            character_ids = _lookup(preprocessor.characters, CHARACTER_IDS)(characters)
            inner_inputs = [inner_inputs, character_ids]
    predictions = inner(inner_inputs)
    per_step = preprocessor.target == "tags"
    class_names = layers.ClassNames(list(preprocessor.classes), name=CLASS_NAMES)
    outputs = {preprocessor.target: class_names(predictions, mask=mask if per_step else None)}
    if "float" in predictions.dtype:
        outputs["probabilities"] = predictions
    return keras.Model(inputs, outputs, name=model.name)


def is_end_to_end(model: keras.Model) -> bool:
    """Whether a model was made by `end_to_end`.

    Args:
        model: `keras.Model`, or anything else, for which the result is False.
    """
    return decodes(model) or any(
        isinstance(layer, layers.ClassNames) and layer.name == CLASS_NAMES
        for layer in getattr(model, "layers", ())
    )


def inner_model(model: keras.Model) -> keras.Model:
    """The model inside an end-to-end model, from arrays to predictions.

    Args:
        model: `keras.Model` made by `end_to_end`.

    Raises:
        ArgumentError: if it is no end-to-end model.
    """
    _check_end_to_end(model)
    generator = generator_layer(model)
    return model.get_layer(INNER_MODEL) if generator is None else generator.model


def preprocessor_of(model: keras.Model) -> SequencePreprocessor | PairPreprocessor:
    """The preprocessor inside an end-to-end model.

    Args:
        model: `keras.Model` made by `end_to_end`.

    Raises:
        ArgumentError: if it is no end-to-end model.
    """
    _check_end_to_end(model)
    if decodes(model):
        return preprocessor_of_generator(model)
    by_name = {layer.name: layer for layer in model.layers}
    tokens, characters = (
        _vocabulary(by_name[name]) if name in by_name else None
        for name in (TOKEN_IDS, CHARACTER_IDS)
    )
    readings = {}
    if tokens is None:
        mask_value = mask_value_of(by_name[INNER_MODEL])
        readings = {"features": model.input_shape[-1], "mask_value": mask_value}
    return SequencePreprocessor(
        next(iter(set(model.output) - {"probabilities"})),
        tuple(by_name[CLASS_NAMES].names),
        tokens,
        characters,
        **readings,
    )


def generator_end_to_end(
    model: layers.EncoderDecoderModel, preprocessor: PairPreprocessor, **decoding: Any
) -> keras.Model:
    """`end_to_end` for an encoder-decoder.

    Args:
        model: `layers.EncoderDecoderModel`.
        preprocessor: `PairPreprocessor`.
        **decoding: of `layers.SequenceGenerator`.
    """
    if isinstance(preprocessor.source, Vocabulary):
        inputs = keras.Input((), dtype="string", name="sentences")
        if preprocessor.source_units == "characters":
            units = layers.SplitCharacters(name="characters")(inputs)
        else:
            units = layers.SplitTokens(name="tokens")(inputs)
        source = keras.ops.cast(_lookup(preprocessor.source, TOKEN_IDS)(units), "int32")
    else:
        inputs = source = keras.Input(model.inputs[0].shape[1:], name="readings")
    decoding = {"max_length": preprocessor.max_length} | decoding
    generated = layers.SequenceGenerator(model, name=GENERATOR, **decoding)(source)
    if not isinstance(preprocessor.target, Vocabulary):
        return keras.Model(inputs, generated, name=model.name)
    ids, scores = generated
    vocabulary = ["", "[UNK]", *preprocessor.target.tokens]
    tokens = layers.ClassNames(vocabulary, name=CLASS_NAMES)(ids)
    separator = " " if preprocessor.target_units == "tokens" else ""
    texts = layers.JoinTokens(separator, name="texts")(tokens)
    return keras.Model(inputs, {"targets": texts, "scores": scores}, name=model.name)


def decodes(model: keras.Model) -> bool:
    """Whether a model is an end-to-end encoder-decoder, which generates sequences when called.

    Args:
        model: `keras.Model`, or anything else, for which the result is False.
    """
    return generator_layer(model) is not None


def preprocessor_of_generator(model: keras.Model) -> PairPreprocessor:
    """The preprocessor inside a model that `generator_end_to_end` made.

    Args:
        model: `keras.Model`.
    """
    by_name = {layer.name: layer for layer in model.layers}
    decoder = by_name[GENERATOR].model
    source: Vocabulary | int = decoder.inputs[0].shape[-1]
    readings = {}
    if TOKEN_IDS in by_name:
        source = _vocabulary(by_name[TOKEN_IDS])
    else:
        readings = {"mask_value": mask_value_of(decoder)}
    target: Vocabulary | int = decoder.output_shape[-1]
    if CLASS_NAMES in by_name:
        target = Vocabulary(by_name[CLASS_NAMES].names[2:])
    separator = by_name["texts"].separator if "texts" in by_name else " "
    return PairPreprocessor(
        source,
        target,
        "characters" if "characters" in by_name else "tokens",
        "tokens" if separator else "characters",
        by_name[GENERATOR].max_length,
        **readings,
    )


def _check_end_to_end(model: keras.Model) -> None:
    if not is_end_to_end(model):
        raise ArgumentError(_NOT_END_TO_END.format(getattr(model, "name", type(model).__name__)))


def _class_count(model: keras.Model) -> int:
    """The number of classes of a classifier or tagger."""
    for layer in model.layers:
        if isinstance(layer, layers.LinearChainCRF):
            return layer.classes
    return model.output_shape[-1]


def _lookup(vocabulary: Vocabulary, name: str) -> keras.layers.StringLookup:
    """A layer from tokens or characters to ids, where the id of "" is 0."""
    return keras.layers.StringLookup(vocabulary=list(vocabulary.tokens), mask_token="", name=name)


def _vocabulary(lookup: keras.layers.StringLookup) -> Vocabulary:
    """The vocabulary of a `_lookup`, without "" and "[UNK]"."""
    return Vocabulary(lookup.get_vocabulary()[2:])


def _renamed(model: keras.Model) -> keras.Model:
    """The same layers and weights under the name of an inner model."""
    return type(model)(model.input, model.output, name=INNER_MODEL)
