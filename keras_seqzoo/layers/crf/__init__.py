"""A linear-chain conditional random field as a layer."""

from keras_seqzoo.layers.crf.constraints import bio_constraints
from keras_seqzoo.layers.crf.layer import LinearChainCRF
from keras_seqzoo.layers.crf.model import CRFModel

__all__ = ["CRFModel", "LinearChainCRF", "bio_constraints"]
