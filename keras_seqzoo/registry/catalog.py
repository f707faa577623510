"""The built-in entries, as data."""

from __future__ import annotations

import dataclasses

from keras_seqzoo.registry.entry import Entry
from keras_seqzoo.registry.search_space import Choice, Float, Int

_STRENGTH_KINDS = {"recurrent_regularizer": ("l1", "l2", "l1_l2")}

# The search space of classifiers, taggers and encoder-decoders.
_SEQUENCE_SPACE = {
    "units": Int(16, 256, log=True, default=64),
    "dropout": Float(0.0, 0.7, default=0.0),
    "input_dropout": Float(0.0, 0.5, default=0.0),
    "recurrent_regularizer": Choice(("none", "l1", "l2"), default="none"),
    "recurrent_strength": Float(1e-7, 1e-3, log=True, default=1e-5, when=_STRENGTH_KINDS),
    "learning_rate": Float(3e-4, 1e-2, log=True, default=2e-3),
}


def _with_defaults(space: dict, defaults: dict) -> dict:
    """A search space with the defaults of an entry."""
    return {
        name: dataclasses.replace(dimension, default=defaults.get(name, dimension.default))
        for name, dimension in space.items()
    }


_BILSTM = {"cell": "lstm", "bidirectional": True, "dropout": 0.5, "input_dropout": 0.2}
_BILSTM_TAGGER = _BILSTM | {"units": 100}

_ELMAN = "Elman, Finding Structure in Time, 1990, https://doi.org/10.1207/s15516709cog1402_1"
_LSTM = (
    "Hochreiter and Schmidhuber, Long Short-Term Memory, Neural Computation 9, 1997, "
    "https://doi.org/10.1162/neco.1997.9.8.1735"
)
_GRU = (
    "Cho et al., Learning Phrase Representations using RNN Encoder-Decoder, EMNLP 2014, "
    "https://doi.org/10.3115/v1/D14-1179"
)
_BILSTM_PAPER = (
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
        inputs="(batch, time, features), raw readings, or (batch, time), token ids",
        outputs="(batch, classes), probabilities",
        causal=not defaults.get("bidirectional", False),
        defaults=defaults,
        space=_with_defaults(_SEQUENCE_SPACE, defaults),
        references=references,
    )


def _tagger(name: str, summary: str, *references: str, **defaults) -> Entry:
    crf = defaults.get("head") == "crf"
    character_features = "character_vocabulary_size" in defaults
    return Entry(
        name=name,
        constructor="keras_seqzoo.models.tagger:sequence_tagger",
        task="tagging",
        family="tagger",
        summary=summary,
        inputs=(
            "(batch, time), token ids, and (batch, time, characters), character ids"
            if character_features
            else "(batch, time, features), raw readings, or (batch, time), token ids"
        ),
        outputs="(batch, time), tag ids" if crf else "(batch, time, classes), probabilities",
        causal=not (crf or defaults.get("bidirectional", False)),
        defaults=defaults,
        space=_with_defaults(_SEQUENCE_SPACE, defaults),
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
_LAST_STATE = {"attention": None, "bidirectional": False, "units": 256}
_WITH_ATTENTION = {"attention": "general", "bidirectional": True, "units": 256}
_WITH_ATTENTION |= {"dropout": 0.5, "input_dropout": 0.3}


def _encoder_decoder(
    name: str,
    summary: str,
    *references: str,
    inputs: str = "(batch, source) token ids or (batch, source, features), and the shifted target",
    outputs: str = "(batch, target, classes), probabilities, or (batch, target, features)",
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
        space=_with_defaults(_SEQUENCE_SPACE, defaults),
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
        inputs="(batch, time, features), raw readings, or (batch, time), token ids",
        outputs=(
            "(batch, features), the last step"
            if last
            else "(batch, time, features), or (batch, time, vocabulary), probabilities"
        ),
        causal=last,  # the output is the last step
        defaults=defaults,
        space=_with_defaults(_AUTOENCODER_SPACE, defaults),
        references=references,
    )


ENTRIES = (
    Entry(
        name="simple_rnn_identity",
        constructor="keras_seqzoo.models.identity:simple_rnn_identity",
        task="identity",
        summary=(
            "SimpleRNN that reconstructs every reading, regularized to depend as little as "
            "possible on earlier readings."
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
        "SimpleRNN classifier: a softmax over classes from the state after the last real step.",
        _ELMAN,
        cell="simple_rnn",
    ),
    _classifier(
        "gru_classifier",
        "GRU classifier: a softmax over classes from the state after the last real step.",
        _GRU,
        cell="gru",
    ),
    _classifier(
        "bilstm_classifier",
        "Bidirectional LSTM classifier: attention pooling over steps, then a softmax over classes.",
        _LSTM,
        _BILSTM_PAPER,
        "Yang et al., Hierarchical Attention Networks for Document Classification, NAACL 2016, "
        "https://doi.org/10.18653/v1/N16-1174",
        **_BILSTM,
        pooling="attention",
    ),
    _tagger(
        "simple_rnn_tagger",
        "SimpleRNN tagger with a softmax over tags at every step.",
        _ELMAN,
        cell="simple_rnn",
    ),
    _tagger(
        "gru_tagger",
        "GRU tagger with a softmax over tags at every step.",
        _GRU,
        cell="gru",
    ),
    _tagger(
        "bilstm_tagger",
        "Bidirectional LSTM tagger with a softmax over tags at every step.",
        _LSTM,
        _BILSTM_PAPER,
        **_BILSTM_TAGGER,
    ),
    _tagger(
        "bilstm_crf_tagger",
        "Bidirectional LSTM tagger with a linear-chain CRF.",
        _BILSTM_PAPER,
        *_CRF,
        **_BILSTM_TAGGER,
        head="crf",
    ),
    _tagger(
        "char_bilstm_crf_tagger",
        "Bidirectional LSTM tagger with character features and a linear-chain CRF.",
        *_CRF,
        *_CHARACTERS,
        **_BILSTM_TAGGER,
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
        summary="GRU that predicts the next reading at every step.",
        inputs="(batch, time, features), raw readings",
        outputs="(batch, time, features), the next readings",
        causal=True,
        defaults={"cell": "gru", "head": "regression"},
        space=_SEQUENCE_SPACE,
        references=(_GRU,),
    ),
    _encoder_decoder(
        "simple_rnn_encoder_decoder",
        "SimpleRNN encoder and SimpleRNN decoder, connected by the last encoder state.",
        _ELMAN,
        _SEQ2SEQ,
        **_LAST_STATE,
        cell="simple_rnn",
    ),
    _encoder_decoder(
        "gru_encoder_decoder",
        "GRU encoder and GRU decoder, connected by the last encoder state.",
        _GRU,
        _SEQ2SEQ,
        **_LAST_STATE,
        cell="gru",
    ),
    _encoder_decoder(
        "attention_gru_encoder_decoder",
        "Bidirectional GRU encoder and GRU decoder with Luong attention.",
        _GRU,
        *_ATTENTION,
        **_WITH_ATTENTION,
        cell="gru",
    ),
    _encoder_decoder(
        "attention_lstm_encoder_decoder",
        "Bidirectional LSTM encoder and LSTM decoder with Luong attention.",
        _LSTM,
        *_ATTENTION,
        **_WITH_ATTENTION,
        cell="lstm",
    ),
    _encoder_decoder(
        "vector_encoder_decoder",
        "GRU encoder and GRU decoder of readings, for autoregressive multi-step forecasting.",
        _GRU,
        _SEQ2SEQ,
        cell="gru",
        units=64,
        attention=None,
        bidirectional=False,
        scheduled_sampling=0.9,
        inputs="(batch, source, features), raw readings, and the target shifted by a step of zeros",
        outputs="(batch, target, features), the next readings",
    ),
    _autoencoder(
        "linear_rnn_autoencoder",
        "Linear RNN encoder to a linear code, and one step that reconstructs the last reading.",
        _ELMAN,
        _DEEP_LEARNING,
        cell="linear",
        reconstruct="last",
        units=32,
        code_size=10,
    ),
    _autoencoder(
        "lstm_autoencoder",
        "LSTM encoder to one code vector, and LSTM decoder that reconstructs every step.",
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
        "GRU encoder to one code vector, and GRU decoder that reconstructs every step.",
        _GRU,
        _UNSUPERVISED,
        _DEEP_LEARNING,
        cell="gru",
        units=128,
        code_size=32,
    ),
    _autoencoder(
        "attention_autoencoder",
        "Bidirectional GRU encoder and GRU decoder with Luong attention, as an autoencoder.",
        _GRU,
        *_ATTENTION,
        _DEEP_LEARNING,
        cell="gru",
        bidirectional=True,
        attention="general",
    ),
)
