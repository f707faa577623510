"""Every built-in entry, as data."""

from __future__ import annotations

import dataclasses

from keras_seqzoo.registry.entry import Entry
from keras_seqzoo.registry.search_space import Choice, Float, Int

_STRENGTH_KINDS = {"recurrent_regularizer": ("l1", "l2", "l1_l2")}

# What a search of a classifier, a tagger or an encoder-decoder varies.
_SEQUENCE_SPACE = {
    "units": Int(16, 256, log=True, default=64),
    "dropout": Float(0.0, 0.7, default=0.0),
    "input_dropout": Float(0.0, 0.5, default=0.0),
    "recurrent_regularizer": Choice(("none", "l1", "l2"), default="none"),
    "recurrent_strength": Float(1e-7, 1e-3, log=True, default=1e-5, when=_STRENGTH_KINDS),
    "learning_rate": Float(3e-4, 1e-2, log=True, default=2e-3),
}


def _around(space: dict, defaults: dict) -> dict:
    """The space of an entry of a family, around its own defaults."""
    return {
        key: dataclasses.replace(value, default=defaults.get(key, value.default))
        for key, value in space.items()
    }


def _sequence_space(defaults: dict) -> dict:
    return _around(_SEQUENCE_SPACE, defaults)


_READ_BOTH_WAYS = {"cell": "lstm", "bidirectional": True, "dropout": 0.5, "input_dropout": 0.2}
_TAG_BOTH_WAYS = _READ_BOTH_WAYS | {"units": 100}

_ELMAN = "Elman, Finding Structure in Time, 1990, https://doi.org/10.1207/s15516709cog1402_1"
_LSTM = (
    "Hochreiter and Schmidhuber, Long Short-Term Memory, Neural Computation 9, 1997, "
    "https://doi.org/10.1162/neco.1997.9.8.1735"
)
_GRU = (
    "Cho et al., Learning Phrase Representations using RNN Encoder-Decoder, EMNLP 2014, "
    "https://doi.org/10.3115/v1/D14-1179"
)
_BILSTM = (
    "Graves and Schmidhuber, Framewise Phoneme Classification with Bidirectional LSTM, Neural "
    "Networks 18, 2005, https://doi.org/10.1016/j.neunet.2005.06.042"
)
_CRF = (
    "Lafferty, McCallum and Pereira, Conditional Random Fields, ICML 2001",
    "Huang, Xu and Yu, Bidirectional LSTM-CRF Models for Sequence Tagging, 2015, "
    "https://arxiv.org/abs/1508.01991",
)
_CHARACTERS = (
    "Lample et al., Neural Architectures for Named Entity Recognition, NAACL 2016, "
    "https://doi.org/10.18653/v1/N16-1030",
    "Ma and Hovy, End-to-end Sequence Labeling via Bi-directional LSTM-CNNs-CRF, ACL 2016, "
    "https://doi.org/10.18653/v1/P16-1101",
)


def _classifier(name: str, summary: str, *references: str, **defaults) -> Entry:
    return Entry(
        name=name,
        constructor="keras_seqzoo.models.classifier:sequence_classifier",
        task="classification",
        family="classifier",
        summary=summary,
        inputs="(batch, time, features), raw readings, or (batch, time), tokens",
        outputs="(batch, classes), probabilities",
        causal=not defaults.get("bidirectional", False),
        defaults=defaults,
        space=_sequence_space(defaults),
        references=references,
    )


def _tagger(name: str, summary: str, *references: str, **defaults) -> Entry:
    crf = defaults.get("head") == "crf"
    spelled = "character_vocabulary_size" in defaults
    return Entry(
        name=name,
        constructor="keras_seqzoo.models.tagger:sequence_tagger",
        task="tagging",
        family="tagger",
        summary=summary,
        inputs=(
            "(batch, time), tokens, and (batch, time, characters), their characters"
            if spelled
            else "(batch, time, features), raw readings, or (batch, time), tokens"
        ),
        outputs="(batch, time), tags" if crf else "(batch, time, classes), probabilities",
        causal=not (crf or defaults.get("bidirectional", False)),
        defaults=defaults,
        space=_sequence_space(defaults),
        references=references,
    )


_SEQ2SEQ = (
    "Sutskever, Vinyals and Le, Sequence to Sequence Learning with Neural Networks, NeurIPS 2014, "
    "https://arxiv.org/abs/1409.3215"
)
_ATTENTION = (
    "Bahdanau, Cho and Bengio, Neural Machine Translation by Jointly Learning to Align and "
    "Translate, ICLR 2015, https://arxiv.org/abs/1409.0473",
    "Luong, Pham and Manning, Effective Approaches to Attention-based Neural Machine Translation, "
    "EMNLP 2015, https://doi.org/10.18653/v1/D15-1166",
)
_ONE_STATE = {"attention": None, "bidirectional": False, "units": 256}
_LOOKING = {"attention": "general", "bidirectional": True, "units": 256}
_LOOKING |= {"dropout": 0.5, "input_dropout": 0.3}


def _encoder_decoder(
    name: str,
    summary: str,
    *references: str,
    inputs: str = "(batch, source) tokens or (batch, source, features), and a target so far",
    outputs: str = "(batch, target, classes), what comes next, or (batch, target, features)",
    **defaults,
) -> Entry:
    return Entry(
        name=name,
        constructor="keras_seqzoo.models.encoder_decoder:sequence_encoder_decoder",
        task="seq2seq",
        family="encoder_decoder",
        summary=summary,
        inputs=inputs,
        outputs=outputs,
        causal=False,
        defaults=defaults,
        space=_sequence_space(defaults),
        references=references,
    )


_DEEP_LEARNING = (
    "Goodfellow, Bengio and Courville, Deep Learning, MIT Press, 2016, chapters 10 (recurrent "
    "networks) and 14 (autoencoders), https://www.deeplearningbook.org"
)
_UNSUPERVISED = (
    "Srivastava, Mansimov and Salakhutdinov, Unsupervised Learning of Video Representations using "
    "LSTMs, ICML 2015, https://arxiv.org/abs/1502.04681"
)
_AUTOENCODER_SPACE = {
    "units": Int(8, 256, log=True, default=64),
    "code_size": Int(2, 64, log=True, default=16),
    "dropout": Float(0.0, 0.5, default=0.0),
    "recurrent_regularizer": Choice(("none", "l1", "l2"), default="none"),
    "recurrent_strength": Float(1e-7, 1e-3, log=True, default=1e-5, when=_STRENGTH_KINDS),
    "learning_rate": Float(3e-4, 3e-2, log=True, default=3e-3),
}


def _autoencoder(name: str, summary: str, *references: str, **defaults) -> Entry:
    last = defaults.get("reconstruct") == "last"
    return Entry(
        name=name,
        constructor="keras_seqzoo.models.autoencoder:sequence_autoencoder",
        task="reconstruction",
        family="autoencoder",
        summary=summary,
        inputs="(batch, time, features), raw readings, or (batch, time), tokens",
        outputs=(
            "(batch, features), the last step"
            if last
            else "(batch, time, features), or (batch, time, vocabulary), probabilities"
        ),
        causal=last,  # what comes out belongs to the last step
        defaults=defaults,
        space=_around(_AUTOENCODER_SPACE, defaults),
        references=references,
    )


ENTRIES = (
    Entry(
        name="simple_rnn_identity",
        constructor="keras_seqzoo.models.identity:simple_rnn_identity",
        task="identity",
        summary=(
            "A SimpleRNN that gives every reading back, regularized so that it owes as little "
            "as possible to earlier readings."
        ),
        inputs="(batch, time, features), raw readings",
        outputs="(batch, time, features), or (batch, features) with return_sequences=False",
        causal=True,
        space={
            "units": Int(2, 32, log=True, default=8),
            "recurrent_regularizer": Choice(("none", "l1", "l2", "l1_l2"), default="l1"),
            "recurrent_strength": Float(1e-5, 1.0, log=True, default=1e-2, when=_STRENGTH_KINDS),
            "recurrent_initializer": Choice(
                ("orthogonal", "glorot_uniform", "zeros"), default="orthogonal"
            ),
            "learning_rate": Float(1e-3, 3e-2, log=True, default=1e-2),
        },
        references=(
            "Elman, Finding Structure in Time, Cognitive Science 14, 1990, "
            "https://doi.org/10.1207/s15516709cog1402_1",
            "Goodfellow, Bengio and Courville, Deep Learning, MIT Press, 2016, chapter 10",
        ),
    ),
    _classifier(
        "simple_rnn_classifier",
        "A SimpleRNN whose state after the last real step gives a probability per class.",
        _ELMAN,
        cell="simple_rnn",
    ),
    _classifier(
        "gru_classifier",
        "A GRU whose state after the last real step gives a probability per class.",
        _GRU,
        cell="gru",
    ),
    _classifier(
        "bilstm_classifier",
        "LSTMs that read the sequence both ways, attention over steps, a probability per class.",
        _LSTM,
        _BILSTM,
        "Yang et al., Hierarchical Attention Networks for Document Classification, NAACL 2016, "
        "https://doi.org/10.18653/v1/N16-1174",
        **_READ_BOTH_WAYS,
        pooling="attention",
    ),
    _tagger(
        "simple_rnn_tagger",
        "A SimpleRNN and a probability per tag at every step.",
        _ELMAN,
        cell="simple_rnn",
    ),
    _tagger(
        "gru_tagger",
        "A GRU and a probability per tag at every step.",
        _GRU,
        cell="gru",
    ),
    _tagger(
        "bilstm_tagger",
        "LSTMs that read the sequence both ways, and a probability per tag at every step.",
        _LSTM,
        _BILSTM,
        **_TAG_BOTH_WAYS,
    ),
    _tagger(
        "bilstm_crf_tagger",
        "LSTMs that read the sequence both ways, and the tags that fit best as a whole (CRF).",
        _BILSTM,
        *_CRF,
        **_TAG_BOTH_WAYS,
        head="crf",
    ),
    _tagger(
        "char_bilstm_crf_tagger",
        "As bilstm_crf_tagger, for tokens whose characters are seen too.",
        *_CRF,
        *_CHARACTERS,
        **_TAG_BOTH_WAYS,
        head="crf",
        vocabulary_size=10_000,
        character_vocabulary_size=100,
        word_dropout=0.05,
    ),
    Entry(
        name="gru_forecaster",
        constructor="keras_seqzoo.models.tagger:sequence_tagger",
        task="forecasting",
        family="tagger",
        summary="A GRU that says at every step what the next reading will be.",
        inputs="(batch, time, features), raw readings",
        outputs="(batch, time, features), the next readings",
        causal=True,
        defaults={"cell": "gru", "head": "regression"},
        space=_sequence_space({}),
        references=(_GRU,),
    ),
    _encoder_decoder(
        "simple_rnn_encoder_decoder",
        "A SimpleRNN reads the source, and another says the target from its last state.",
        _ELMAN,
        _SEQ2SEQ,
        **_ONE_STATE,
        cell="simple_rnn",
    ),
    _encoder_decoder(
        "gru_encoder_decoder",
        "A GRU reads the source, and another says the target from its last state.",
        _GRU,
        _SEQ2SEQ,
        **_ONE_STATE,
        cell="gru",
    ),
    _encoder_decoder(
        "attention_gru_encoder_decoder",
        "GRUs read the source both ways; another says the target and looks at all they read.",
        _GRU,
        *_ATTENTION,
        **_LOOKING,
        cell="gru",
    ),
    _encoder_decoder(
        "attention_lstm_encoder_decoder",
        "LSTMs read the source both ways; another says the target and looks at all they read.",
        _LSTM,
        *_ATTENTION,
        **_LOOKING,
        cell="lstm",
    ),
    _encoder_decoder(
        "vector_encoder_decoder",
        "A GRU reads readings; another says as many to come as are asked for, each from the last.",
        _GRU,
        _SEQ2SEQ,
        cell="gru",
        units=64,
        attention=None,
        bidirectional=False,
        scheduled_sampling=0.9,
        inputs="(batch, source, features), raw readings, and a target so far, which begins with 0",
        outputs="(batch, target, features), the next readings",
    ),
    _autoencoder(
        "linear_rnn_autoencoder",
        "Linear recurrent steps into a linear code, from which one step says the last reading.",
        _ELMAN,
        _DEEP_LEARNING,
        cell="linear",
        reconstruct="last",
        units=32,
        code_size=10,
    ),
    _autoencoder(
        "lstm_autoencoder",
        "An LSTM makes one code of a sequence, and another says every step from it.",
        _LSTM,
        _UNSUPERVISED,
        _SEQ2SEQ,
        _DEEP_LEARNING,
        cell="lstm",
        units=128,
        code_size=32,
    ),
    _autoencoder(
        "gru_autoencoder",
        "A GRU makes one code of a sequence, and another says every step from it.",
        _GRU,
        _UNSUPERVISED,
        _DEEP_LEARNING,
        cell="gru",
        units=128,
        code_size=32,
    ),
    _autoencoder(
        "attention_autoencoder",
        "GRUs read a sequence both ways; another says it again and looks at all they read.",
        _GRU,
        *_ATTENTION,
        _DEEP_LEARNING,
        cell="gru",
        bidirectional=True,
        attention="general",
    ),
)
