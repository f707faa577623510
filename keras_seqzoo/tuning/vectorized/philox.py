"""The Philox random number generator of TensorFlow's stateless operations, also under XLA.

XLA compiles those operations to another generator, so that dropout in a population would differ
from dropout in `fit`. This module is Philox4x32-10 as TensorFlow runs it on a CPU. Each counter
gives four numbers, which fill a tensor in row-major order. Any element can be computed by itself.

Reference: Salmon et al., 2011, "Parallel random numbers: as easy as 1, 2, 3",
https://doi.org/10.1145/2063384.2063405
"""

from __future__ import annotations

import tensorflow as tf

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_SCRAMBLE = (0x3EC8F720, 0x02461E29)  # key with which TensorFlow turns a seed into a key
_ROUNDS = 10


def uniform(seeds, index, dtype):
    """Elements of the result of `tf.random.stateless_uniform`, in [0, 1).

    Args:
        seeds: pair of int32 tensors, the two numbers of the operation's seed, at least 0.
        index: int32 tensor, indices into the flattened result. Seeds and index broadcast.
        dtype: float32 or float64.

    Returns:
        Tensor of `dtype`.
    """
    zero = tf.zeros_like(seeds[0], tf.uint32)
    first, second = (tf.cast(seed, tf.uint32) for seed in seeds)
    key = [tf.fill(tf.shape(zero), tf.constant(word, tf.uint32)) for word in _SCRAMBLE]
    *key, low, high = _philox((first, zero, second, zero), key)
    per_counter = 2 if dtype == tf.float64 else 4  # numbers per counter
    counter = tf.cast(index // per_counter, tf.uint32)
    words = _philox((counter, tf.zeros_like(counter), low, high), key)
    lane = index % per_counter
    if dtype == tf.float64:
        upper = tf.where(lane == 0, words[0], words[2])
        lower = tf.where(lane == 0, words[1], words[3])
        return _to_float64(upper, lower)
    word = words[0]
    for number in range(1, 4):
        word = tf.where(lane == number, words[number], word)
    return _to_float32(word)


def _philox(counter, key):
    """Apply the rounds of Philox to a counter of four words."""
    word_0, word_1, word_2, word_3 = counter
    left, right = key
    for _ in range(_ROUNDS):
        (high_0, low_0), (high_1, low_1) = _multiply(word_0, 0), _multiply(word_2, 1)
        word_0, word_1 = high_1 ^ word_1 ^ left, low_1
        word_2, word_3 = high_0 ^ word_3 ^ right, low_0
        left, right = left + _WEYL[0], right + _WEYL[1]
    return word_0, word_1, word_2, word_3


def _multiply(word, lane: int):
    """High and low word of the 64-bit product with a constant."""
    product = tf.cast(word, tf.uint64) * tf.constant(_MULTIPLIERS[lane], tf.uint64)
    high = tf.bitwise.right_shift(product, tf.constant(32, tf.uint64))
    return tf.cast(high, tf.uint32), tf.cast(product, tf.uint32)


def _to_float32(word):
    """A number in [0, 1): the lower 23 bits become the fraction of a number in [1, 2), minus 1."""
    bits = (word & 0x7FFFFF) | 0x3F800000
    return tf.bitcast(bits, tf.float32) - 1


def _to_float64(upper, lower):
    """The same with 52 bits: the lower 20 of `upper`, and all of `lower`."""
    upper = tf.cast((upper & 0xFFFFF) | 0x3FF00000, tf.uint64)
    upper = tf.bitwise.left_shift(upper, tf.constant(32, tf.uint64))
    return tf.bitcast(upper | tf.cast(lower, tf.uint64), tf.float64) - 1
