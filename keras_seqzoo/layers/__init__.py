"""Layers that Keras lacks. Importing this module lets plain `keras.saving.load_model` find them."""

from keras_seqzoo.layers.answers import Answers
from keras_seqzoo.layers.attention import SourceAttention
from keras_seqzoo.layers.code_decoder import CodeDecoder
from keras_seqzoo.layers.crf import CRFModel, LinearChainCRF, bio_constraints
from keras_seqzoo.layers.decoder import Decoder
from keras_seqzoo.layers.encoder_decoder import EncoderDecoderModel
from keras_seqzoo.layers.ensemble import Ensemble
from keras_seqzoo.layers.generating import Generated
from keras_seqzoo.layers.history import HistoryPenalty
from keras_seqzoo.layers.masking import AllSteps, ApplyMask, StepMask, step_mask
from keras_seqzoo.layers.pooling import LastState, Pooling
from keras_seqzoo.layers.recurrent import (
    GRU,
    LSTM,
    Bidirectional,
    SimpleRNN,
    compile_recurrences,
)
from keras_seqzoo.layers.sampling import ScheduledSampling
from keras_seqzoo.layers.scaling import Normalization, adapt, has_scaling
from keras_seqzoo.layers.text import ClassNames, JoinTokens, SplitCharacters, SplitTokens
from keras_seqzoo.layers.tokens import CharacterBiLSTM, CharacterCNN, TokenMask, WordDropout
from keras_seqzoo.losses import NormalizedMeanSquaredError, SmoothedCrossentropy
from keras_seqzoo.regularizers import SpectralNorm

__all__ = [
    "ClassNames",
    "GRU",
    "LSTM",
    "AllSteps",
    "Answers",
    "ApplyMask",
    "Bidirectional",
    "CRFModel",
    "CharacterBiLSTM",
    "CharacterCNN",
    "CodeDecoder",
    "Decoder",
    "EncoderDecoderModel",
    "Ensemble",
    "Generated",
    "JoinTokens",
    "HistoryPenalty",
    "LastState",
    "LinearChainCRF",
    "Normalization",
    "NormalizedMeanSquaredError",
    "Pooling",
    "ScheduledSampling",
    "SimpleRNN",
    "SmoothedCrossentropy",
    "SourceAttention",
    "SpectralNorm",
    "SplitCharacters",
    "SplitTokens",
    "StepMask",
    "TokenMask",
    "WordDropout",
    "adapt",
    "bio_constraints",
    "compile_recurrences",
    "has_scaling",
    "step_mask",
]
