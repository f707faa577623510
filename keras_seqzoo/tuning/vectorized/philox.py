"""The random numbers of TensorFlow's stateless operations, any of them by itself, also under XLA.

Compiled by XLA those operations give other numbers than alone, so that dropout in a population
would not be that of `fit`. This is Philox4x32-10 as TensorFlow runs it on a CPU: a draw of shape
`s` takes its numbers in order, four to a counter.

Source: Salmon et al., 2011, "Parallel random numbers: as easy as 1, 2, 3",
https://doi.org/10.1145/2063384.2063405
"""

from __future__ import annotations

import tensorflow as tf

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_SCRAMBLE = (0x3EC8F720, 0x02461E29)  # the key that TensorFlow makes a key of a seed with
_ROUNDS = 10


def uniform(seeds, index, dtype):
    """Numbers of `tf.random.stateless_uniform`, in [0, 1).

    Args:
        seeds: pair of int32 tensors, what the operation would be given, not negative.
        index: int32, at which place in the flat result; all three broadcast.
        dtype: float32 or float64.

    Returns:
        Tensor of `dtype`.
    """
    zero = tf.zeros_like(seeds[0], tf.uint32)
    first, second = (tf.cast(seed, tf.uint32) for seed in seeds)
    key = [tf.fill(tf.shape(zero), tf.constant(word, tf.uint32)) for word in _SCRAMBLE]
    *key, low, high = _philox((first, zero, second, zero), key)
    each = 2 if dtype == tf.float64 else 4  # numbers of a counter
    counter = tf.cast(index // each, tf.uint32)
    words = _philox((counter, tf.zeros_like(counter), low, high), key)
    lane = index % each
    if dtype == tf.float64:
        upper = tf.where(lane == 0, words[0], words[2])
        lower = tf.where(lane == 0, words[1], words[3])
        return _to_float64(upper, lower)
    chosen = words[0]
    for number in range(1, 4):
        chosen = tf.where(lane == number, words[number], chosen)
    return _to_float32(chosen)


def _philox(counter, key):
    """Ten rounds on four words."""
    zero, one, two, three = counter
    left, right = key
    for _ in range(_ROUNDS):
        (high_0, low_0), (high_1, low_1) = _multiply(zero, 0), _multiply(two, 1)
        zero, one, two, three = high_1 ^ one ^ left, low_1, high_0 ^ three ^ right, low_0
        left, right = left + _WEYL[0], right + _WEYL[1]
    return zero, one, two, three


def _multiply(word, which: int):
    product = tf.cast(word, tf.uint64) * tf.constant(_MULTIPLIERS[which], tf.uint64)
    high = tf.bitwise.right_shift(product, tf.constant(32, tf.uint64))
    return tf.cast(high, tf.uint32), tf.cast(product, tf.uint32)


def _to_float32(word):
    """The lower 23 bits as the fraction of a number in [1, 2), less 1."""
    bits = (word & 0x7FFFFF) | 0x3F800000
    return tf.bitcast(bits, tf.float32) - 1


def _to_float64(upper, lower):
    upper = tf.cast((upper & 0xFFFFF) | 0x3FF00000, tf.uint64)
    upper = tf.bitwise.left_shift(upper, tf.constant(32, tf.uint64))
    return tf.bitcast(upper | tf.cast(lower, tf.uint64), tf.float64) - 1
