"""Sequence layers that Keras lacks. Importing this module registers them for `load_model`."""

from keras_seqzoo.layers.crf.constraints import bio_constraints
from keras_seqzoo.layers.crf.layer import LinearChainCRF
from keras_seqzoo.layers.crf.model import CRFModel
from keras_seqzoo.layers.embeddings import CharacterBiLSTM, CharacterCNN, TokenMask, WordDropout
from keras_seqzoo.layers.generation.generate import GenerationOutput
from keras_seqzoo.layers.leakage_penalty import LeakagePenalty
from keras_seqzoo.layers.masking import AllSteps, ApplyMask, StepMask, step_mask
from keras_seqzoo.layers.normalization import Normalization, adapt, has_scaling
from keras_seqzoo.layers.pooling import LastState, Pooling
from keras_seqzoo.layers.preprocessing import ClassNames, JoinTokens, SplitCharacters, SplitTokens
from keras_seqzoo.layers.rnn.recurrent import (
    GRU,
    LSTM,
    Bidirectional,
    SimpleRNN,
    compile_recurrences,
)
from keras_seqzoo.layers.seq2seq.attention import SourceAttention
from keras_seqzoo.layers.seq2seq.code_decoder import CodeDecoder
from keras_seqzoo.layers.seq2seq.decoder import Decoder
from keras_seqzoo.layers.seq2seq.encoder_decoder import EncoderDecoderModel
from keras_seqzoo.layers.seq2seq.ensemble import Ensemble
from keras_seqzoo.layers.seq2seq.scheduled_sampling import ScheduledSampling
from keras_seqzoo.layers.seq2seq.sequence_generator import SequenceGenerator
from keras_seqzoo.losses import NormalizedMeanSquaredError, SmoothedCrossentropy
from keras_seqzoo.regularizers import SpectralNorm

__all__ = [
    "GRU",
    "LSTM",
    "AllSteps",
    "ApplyMask",
    "Bidirectional",
    "CRFModel",
    "CharacterBiLSTM",
    "CharacterCNN",
    "ClassNames",
    "CodeDecoder",
    "Decoder",
    "EncoderDecoderModel",
    "Ensemble",
    "GenerationOutput",
    "JoinTokens",
    "LastState",
    "LeakagePenalty",
    "LinearChainCRF",
    "Normalization",
    "NormalizedMeanSquaredError",
    "Pooling",
    "ScheduledSampling",
    "SequenceGenerator",
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
