"""Encoder-decoders: attention, step-by-step decoding, `generate`, ensembles, training."""

from __future__ import annotations

import itertools
import subprocess
import sys

import keras
import numpy as np
import pytest

import keras_seqzoo as zoo
from keras_seqzoo import layers
from keras_seqzoo.data import PairPreprocessor, SequencePairs, read_sequence_pairs
from keras_seqzoo.errors import ArgumentError, DataError
from keras_seqzoo.layers.generation import samplers
from keras_seqzoo.layers.generation.samplers import END, START
from keras_seqzoo.layers.rnn.attention_weights import attention_weights
from keras_seqzoo.losses import crossentropy
from keras_seqzoo.models.encoder_decoder import sequence_encoder_decoder
from tests.helpers.marks import slow_except
from tests.helpers.weight_gradients import weight_gradients

as_numpy = keras.ops.convert_to_numpy

KINDS = [
    {"attention": "general", "cell": "gru"},
    {"attention": "additive", "cell": "lstm", "num_layers": 2},
    {"attention": "additive", "cell": "gru"},
    {"attention": "dot", "cell": "gru", "bidirectional": False, "input_feeding": True},
    {"attention": "multi_head", "cell": "simple_rnn", "num_layers": 2, "input_feeding": True},
    {"attention": None, "cell": "lstm"},
]
IDS = [f"{kind['attention']}_{kind['cell']}" for kind in KINDS]
BEAM = {"strategy": "beam", "num_beams": 3}  # shared, as each set of options is compiled
SIZES = {"source_vocabulary_size": 9, "target_vocabulary_size": 6, "units": 8, "embedding_dim": 5}


def sources(rows: int = 4, time: int = 7) -> np.ndarray:
    rng = np.random.default_rng(0)
    tokens = rng.integers(1, 9, (rows, time)).astype("int32")
    tokens[0, 4:] = 0
    return tokens


@pytest.fixture(scope="module", params=slow_except([KINDS[0]], KINDS), ids=IDS)
def model(request):
    """A model with large weights, so that the probabilities of sequences differ."""
    keras.utils.set_random_seed(0)
    model = sequence_encoder_decoder(**SIZES, **request.param)
    for weight in model.trainable_weights:
        weight.assign(1.5 * weight)
    return model


def without_padding(tokens: np.ndarray) -> list[int]:
    return [token for token in tokens if token]


def teacher_forced_scores(
    model, source: np.ndarray, sequences: list[list[int]], max_length: int
) -> list[float]:
    """Log-probabilities of sequences, from `predict` with the sequences as targets."""
    with_end_token = [[*row, END] if len(row) < max_length else row for row in sequences]
    targets = np.zeros((len(with_end_token), max_length), "int32")
    for target, row in zip(targets, with_end_token, strict=True):
        target[: len(row)] = [START, *row[:-1]]
    sources = np.repeat(source[None], len(with_end_token), 0)
    probabilities = model.predict([sources, targets], batch_size=len(with_end_token), verbose=0)
    return [
        float(np.log(by_step[range(len(row)), row]).sum())
        for by_step, row in zip(probabilities, with_end_token, strict=True)
    ]


def softmax(scores: np.ndarray) -> np.ndarray:
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


@pytest.mark.parametrize("kind", ["additive", "dot", "general", "multi_head"])
def test_attention_equals_its_equation(kind, float64):
    rng = np.random.default_rng(1)
    queries, memory = rng.normal(size=(2, 3, 6)), rng.normal(size=(2, 5, 6))
    mask = np.array([[True] * 5, [True, True, False, False, False]])
    layer = layers.SourceAttention(kind, 4, num_heads=2)
    contexts, weights = layer(queries, memory, mask=mask)
    layer.set_weights([rng.normal(size=weight.shape) for weight in layer.get_weights()])
    contexts, weights = map(as_numpy, layer(queries, memory, mask=mask))
    w = {weight.name: as_numpy(weight) for weight in layer.weights}
    for row, query in itertools.product(range(2), range(3)):
        steps = np.flatnonzero(mask[row])
        q, m = queries[row, query], memory[row, steps]
        if kind == "multi_head":
            query_heads, keys, values = (
                x @ w[f"{name}_kernel"] for x, name in ((q, "query"), (m, "key"), (m, "value"))
            )
            heads = [slice(0, 2), slice(2, 4)]
            by_head = [softmax(keys[:, head] @ query_heads[head] / np.sqrt(2)) for head in heads]
            mixed = [w_head @ values[:, head] for w_head, head in zip(by_head, heads, strict=True)]
            context = np.concatenate(mixed) @ w["context_kernel"]
            expected = np.mean(by_head, 0)
        else:
            if kind == "additive":
                score = np.tanh(q @ w["query_kernel"] + m @ w["key_kernel"] + w["bias"])
                score = score @ w["score"]
            else:
                score = (m if kind == "dot" else m @ w["key_kernel"]) @ q
            expected = softmax(score)
            context = expected @ m
        np.testing.assert_allclose(weights[row, query, steps], expected, atol=1e-9)
        np.testing.assert_allclose(contexts[row, query], context, atol=1e-9)
    assert (weights[1, :, 2:] == 0).all()


@pytest.mark.parametrize("scores", [[2.0], [0.0, -60.0], [1.0, 3.0, -2.0]])
@pytest.mark.parametrize("masked", [False, True])
def test_attention_weights_have_the_gradient_of_a_softmax(scores, masked):
    factors = np.random.default_rng(0).normal(size=len(scores) + masked).astype("float32")
    variable = keras.Variable([*scores, 5.0] if masked else scores)
    real = np.array([True] * len(scores) + [False]) if masked else None

    def total():
        weights = attention_weights(keras.ops.convert_to_tensor(variable), real)
        return keras.ops.sum(keras.ops.multiply(weights, factors))

    (gradient,) = weight_gradients(total, [variable])
    weights, factors = softmax(np.array(scores)), factors[: len(scores)]
    expected = weights * (factors - weights @ factors)
    np.testing.assert_allclose(gradient, [*expected, 0.0] if masked else expected, atol=1e-6)


def test_attention_is_zero_for_a_source_without_real_steps():
    layer = layers.SourceAttention("general", 4)
    contexts, weights = layer(np.ones((1, 2, 3)), np.ones((1, 4, 5)), mask=np.zeros((1, 4), bool))
    assert not as_numpy(contexts).any() and not as_numpy(weights).any()


def test_step_by_step_outputs_equal_predict_on_the_whole_target(model):
    source = sources()
    target = np.random.default_rng(2).integers(2, 6, (4, 5)).astype("int32")
    at_once = np.log(np.asarray(model.predict([source, target], verbose=0)))
    memory, state = model.encode(source)
    for step in range(5):
        tokens = keras.ops.convert_to_tensor(target[:, step])
        log_probs, state, _ = model.step(tokens, state, memory)
        np.testing.assert_allclose(log_probs, at_once[:, step], atol=2e-5)


def test_scores_of_generated_sequences_equal_those_of_predict(model):
    source = sources()
    for options in ({}, BEAM, {"strategy": "sample", "seed": 3}):
        generated = model.generate(source, max_length=6, **options)
        for row in range(4):
            tokens = without_padding(generated.sequences[row])
            (expected,) = teacher_forced_scores(model, source[row], [tokens], 6)
            assert generated.scores[row] == pytest.approx(expected, abs=2e-5)


def test_rows_of_a_batch_do_not_affect_generated_sequences(model):
    source = sources()
    for options in ({}, BEAM, {"return_attention": True}):
        if "return_attention" in options and model.get_layer("decoder").attention is None:
            continue
        together = model.generate(source, max_length=6, **options)
        alone = model.generate(source[1:2], max_length=6, **options)
        np.testing.assert_array_equal(alone.sequences, together.sequences[1:2])
        np.testing.assert_allclose(alone.scores, together.scores[1:2], atol=1e-5)
        if together.attention is not None:
            np.testing.assert_allclose(alone.attention, together.attention[1:2], atol=1e-5)


def test_greedy_search_takes_the_most_probable_token_at_each_step(model):
    source = sources()
    sequences = model.generate(source, max_length=6).sequences
    for row in range(4):
        expected: list[int] = []
        while len(expected) < 6:
            target = np.array([[START, *expected]], "int32")
            probabilities = np.asarray(model.predict([source[row : row + 1], target], verbose=0))
            last = probabilities[0, -1]
            last[[0, START]] = 0
            if last.argmax() == END:
                break
            expected.append(int(last.argmax()))
        assert without_padding(sequences[row]) == expected


def test_beam_search_with_enough_beams_finds_the_most_probable_sequences(model):
    source, length = sources(), 3
    tokens = [1, 4, 5]
    sizes = range(length + 1)
    sequences = [list(row) for size in sizes for row in itertools.product(tokens, repeat=size)]
    options = {"strategy": "beam", "num_beams": 40}
    generated = model.generate(source, max_length=length, num_return_sequences=5, **options)
    for row in (0, 2):
        forced = teacher_forced_scores(model, source[row], sequences, length)
        scores = dict(zip(map(tuple, sequences), forced, strict=True))
        best = sorted(scores, key=scores.get, reverse=True)[:5]
        best_scores = [scores[sequence] for sequence in best]
        np.testing.assert_allclose(generated.scores[row], best_scores, atol=2e-5)
        of_each = [scores[tuple(without_padding(x))] for x in generated.sequences[row]]
        np.testing.assert_allclose(generated.scores[row], of_each, atol=2e-5)
        assert without_padding(generated.sequences[row, 0]) == list(best[0])
    few = model.generate(source, max_length=1, num_return_sequences=7, **options)
    shortest = {tuple(without_padding(x)) for x in few.sequences[1, :4]}
    assert shortest == {(), (1,), (4,), (5,)}
    assert np.isfinite(few.scores[:, :4]).all()
    assert not few.sequences[:, 4:].any() and (few.scores[:, 4:] == -np.inf).all()


def test_padding_and_other_rows_do_not_change_beam_search(model):
    source = sources()
    together = model.generate(source, max_length=6, **BEAM)
    longer = model.generate(np.pad(source, ((0, 0), (0, 11))), max_length=6, **BEAM)
    alone = model.generate(source[:1, :4], max_length=6, **BEAM)
    np.testing.assert_array_equal(together.sequences, longer.sequences)
    np.testing.assert_allclose(together.scores, longer.scores, atol=1e-5)
    np.testing.assert_array_equal(together.sequences[:1], alone.sequences)
    np.testing.assert_allclose(together.scores[:1], alone.scores, atol=1e-5)


def test_padding_of_a_target_does_not_change_the_loss():
    target = np.random.default_rng(2).integers(2, 6, (4, 5)).astype("int32")
    inputs = np.concatenate([np.full((4, 1), START, "int32"), target[:, :-1]], axis=1)
    results = []
    for padding in (0, 6):
        keras.utils.set_random_seed(5)
        model = sequence_encoder_decoder(**SIZES)
        model.compile(keras.optimizers.SGD(1.0), crossentropy(), run_eagerly=True)
        x, y = (np.pad(array, ((0, 0), (0, padding))) for array in (inputs, target))
        loss = model.train_on_batch([sources(), x], y)
        results.append((loss, model.get_weights()))
        assert not np.asarray(model([sources(), x]))[:, 5:].any()
    (loss, weights), (padded_loss, padded_weights) = results
    assert padded_loss == pytest.approx(loss, rel=1e-5)
    for weight, padded in zip(weights, padded_weights, strict=True):
        np.testing.assert_allclose(padded, weight, rtol=1e-4, atol=1e-6)


def test_every_weight_has_a_gradient(model):
    target = np.random.default_rng(2).integers(2, 6, (4, 5)).astype("int32")
    weights = model.trainable_weights
    gradients = weight_gradients(
        lambda: keras.ops.sum(model([sources(), target], training=True)[..., 3] ** 2), weights
    )
    for weight, gradient in zip(weights, gradients, strict=True):
        assert gradient is not None, weight.path
        assert np.abs(gradient).max() > 0, weight.path


@pytest.mark.slow
def test_penalties_rank_hypotheses_as_in_wu_et_al():
    keras.utils.set_random_seed(1)
    model = sequence_encoder_decoder(**SIZES)
    options = {"max_length": 6, "strategy": "beam", "num_beams": 5, "num_return_sequences": 5}
    plain = model.generate(sources(), **options)
    assert (np.diff(plain.scores, axis=1) <= 0).all()
    alpha = 1.5
    longer = model.generate(sources(), length_penalty=alpha, **options)
    lengths = np.minimum((longer.sequences > 0).sum(-1) + 1, 6)  # with the end
    ranks = longer.scores / ((5 + lengths) / 6) ** alpha
    assert (np.diff(ranks, axis=1) <= 1e-6).all()
    assert set(map(tuple, longer.sequences[1])) == set(map(tuple, plain.sequences[1]))
    covering = model.generate(sources(), coverage_penalty=2.0, return_attention=True, **options)
    real = sources()[:, None] != 0
    coverage = covering.attention.sum(2)
    log_coverage = np.where(real, np.log(np.clip(coverage, 1e-9, 1)), 0).sum(-1)
    assert (np.diff(covering.scores + 2 * log_coverage, axis=1) <= 1e-5).all()
    for sequence, weights in zip(covering.sequences[1], covering.attention[1], strict=True):
        expected = model.attention(sources()[1], without_padding(sequence))[:6]
        np.testing.assert_allclose(weights[: len(expected)], expected, atol=1e-5)
        assert not weights[len(expected) :].any()


def test_attention_weights_of_generated_tokens_sum_to_one_until_the_end():
    keras.utils.set_random_seed(1)
    model = sequence_encoder_decoder(**SIZES)
    generated = model.generate(sources(), max_length=6, return_attention=True)
    ends = np.minimum((generated.sequences > 0).sum(1) + 1, 6)
    for row, end in enumerate(ends):
        np.testing.assert_allclose(generated.attention[row, :end].sum(-1), 1, atol=1e-5)
        assert not generated.attention[row, end:].any()
    assert generated.attention.shape[-1] == sources().shape[1]
    assert not generated.attention[0, :, 4:].any()  # padding


@pytest.mark.parametrize(
    "policy", ["mixed_bfloat16", pytest.param("float64", marks=pytest.mark.tensorflow)]
)
@pytest.mark.slow
def test_generation_is_finite_under_any_dtype_policy(policy):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = sequence_encoder_decoder(**SIZES)
        for options in ({}, {"strategy": "sample"}, {"strategy": "beam", "coverage_penalty": 1.0}):
            generated = model.generate(sources(), max_length=4, **options)
            assert np.isfinite(generated.scores).all()
        generated = sequence_encoder_decoder(**VECTORS).generate(readings(), max_length=3)
        assert np.isfinite(generated.sequences).all()
    finally:
        keras.config.set_dtype_policy(before)


@pytest.mark.slow
def test_samples_are_determined_by_the_seed_and_follow_the_distribution():
    keras.utils.set_random_seed(2)
    model = sequence_encoder_decoder(**SIZES)
    source = np.repeat(sources()[1:2], 2000, axis=0)
    options = {"max_length": 1, "strategy": "sample", "batch_size": 2000}

    def sample(**more):
        return model.generate(source, **options, **more).sequences[:, 0]

    def distinct(tokens):
        return set(np.where(tokens == 0, END, tokens))

    tokens = sample(seed=5)
    np.testing.assert_array_equal(tokens, sample(seed=5))
    assert (tokens != sample(seed=6)).any()
    expected = np.asarray(model.predict([source[:1], np.array([[START]])], verbose=0))[0, 0]
    expected[[0, START]] = 0
    expected /= expected.sum()
    counts = np.bincount(np.where(tokens == 0, END, tokens), minlength=6) / 2000
    np.testing.assert_allclose(counts, expected, atol=0.05)
    order = np.argsort(-expected)
    assert distinct(sample(top_k=2)) == set(order[:2])
    assert distinct(sample(top_p=float(expected[order[0]]) + 0.01)) == set(order[:2])
    assert distinct(sample(temperature=1e-6)) == {order[0]}


GENERATE = """
import pathlib, sys
import numpy as np
import keras_seqzoo as zoo
for path in sorted(pathlib.Path(sys.argv[1]).glob("*.keras")):
    strategy = "greedy" if path.stem == "readings" else "beam"
    generated = zoo.load(path).generate(
        np.load(path.with_suffix(".npy")), max_length=6, strategy=strategy
    )
    scores = {} if generated.scores is None else {"scores": generated.scores}
    np.savez(path.with_suffix(".npz"), sequences=generated.sequences, **scores)
"""


@pytest.mark.slow
def test_loaded_models_generate_equal_sequences_in_a_new_process(tmp_path):
    models = {}
    for index in (0, 1, 4):
        keras.utils.set_random_seed(index)
        models[f"tokens_{index}"] = sequence_encoder_decoder(**SIZES, **KINDS[index]), sources()
    models["readings"] = sequence_encoder_decoder(**VECTORS), readings()
    for name, (model, source) in models.items():
        model.save(tmp_path / f"{name}.keras")
        np.save(tmp_path / f"{name}.npy", source)
    subprocess.run([sys.executable, "-c", GENERATE, str(tmp_path)], check=True)
    for name, (model, source) in models.items():
        strategy = "greedy" if name == "readings" else "beam"
        expected = model.generate(source, max_length=6, strategy=strategy)
        with np.load(tmp_path / f"{name}.npz") as loaded:
            if name == "readings":
                np.testing.assert_allclose(loaded["sequences"], expected.sequences, rtol=1e-5)
                continue
            np.testing.assert_array_equal(loaded["sequences"], expected.sequences, err_msg=name)
            np.testing.assert_allclose(loaded["scores"], expected.scores, atol=1e-5, err_msg=name)


@pytest.mark.slow
def test_batch_size_does_not_change_generated_sequences():
    model = sequence_encoder_decoder(**SIZES)
    options = {"max_length": 6, "return_attention": True, "strategy": "sample", "seed": 7}
    at_once = model.generate(sources(5), **options)
    in_parts = model.generate(sources(5), batch_size=3, **options)
    np.testing.assert_array_equal(in_parts.sequences, at_once.sequences)
    np.testing.assert_allclose(in_parts.scores, at_once.scores, atol=1e-5)
    np.testing.assert_allclose(in_parts.attention, at_once.attention, atol=1e-5)


@pytest.mark.tensorflow  # elsewhere a loop is traced, not run step by step
def test_decoding_loops_stop_when_all_rows_are_finished():
    steps = []

    def step(token, state):  # each row ends after as many steps as its state
        steps.append(len(steps))
        log_probs = np.full((token.shape[0], 6), -9.0, "float32")
        tokens = np.where(np.asarray(state) > len(steps), 4, END)
        log_probs[np.arange(len(log_probs)), tokens] = 0
        return keras.ops.convert_to_tensor(log_probs), state, None

    ends = keras.ops.convert_to_tensor(np.array([2, 3, 1], "int32"))
    result = samplers.greedy_search(step, ends, 3, 50, samplers.argmax_sampler)
    assert len(steps) == 3
    assert np.asarray(result.sequences).sum(1).tolist() == [4, 8, 0]
    steps.clear()
    samplers.beam_search(step, ends, 3, 50, 1)
    assert len(steps) == 3


@pytest.mark.tensorflow  # elsewhere nothing is compiled
def test_second_call_of_generate_is_not_retraced():
    model = sequence_encoder_decoder(**SIZES)
    expected = model.generate(sources(), max_length=6)
    model.encode = model.make_step = None  # tracing would call them
    generated = model.generate(sources()[::-1].copy(), max_length=6)
    np.testing.assert_array_equal(generated.sequences, expected.sequences[::-1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_length": 0}, "`max_length`"),
        ({"strategy": "best"}, "`strategy`"),
        ({"strategy": "beam", "num_beams": 0}, "`num_beams`"),
        ({"num_return_sequences": 2}, "`num_return_sequences`"),
        ({"strategy": "beam", "num_beams": 2, "num_return_sequences": 3}, "`num_return_sequences`"),
        ({"length_penalty": -1}, "`length_penalty`"),
        ({"temperature": 0}, "`temperature`"),
        ({"top_p": 1.5}, "`top_p`"),
        ({"top_k": 0}, "`top_k`"),
        ({"seed": -1}, "`seed`"),
    ],
)
def test_generate_rejects_options_out_of_range(options, message):
    model = sequence_encoder_decoder(**SIZES)
    with pytest.raises(ArgumentError, match=message):
        model.generate(sources(), **options)


def test_generate_and_attention_reject_invalid_data():
    model = sequence_encoder_decoder(**SIZES)
    for source in (np.zeros((0, 4)), np.zeros((2, 0)), np.zeros(3)):
        with pytest.raises(DataError, match="at least one step"):
            model.generate(source)
    with pytest.raises(DataError, match="ints from 0 to 8"):
        model.generate(np.array([["a", "b"]]))
    for target in ([9], [[4]], [0.5]):
        with pytest.raises(DataError, match="`target` must be"):
            model.attention(sources()[1], target)
    assert model.attention(sources()[1], []).shape == (1, 7)  # the end token alone
    vectors = sequence_encoder_decoder(**VECTORS)
    with pytest.raises(DataError, match="readings of 3 features"):
        vectors.generate(np.zeros((2, 5, 2)))
    with pytest.raises(DataError, match="at least one step"):
        vectors.attention(np.zeros((5, 3)), np.zeros((0, 2)))
    with pytest.raises(ArgumentError, match="without attention"):
        sequence_encoder_decoder(**SIZES, attention=None).generate(sources(), return_attention=True)
    with pytest.raises(ArgumentError, match="input_feeding"):
        sequence_encoder_decoder(**SIZES, attention="additive", input_feeding=True)
    with pytest.raises(ArgumentError, match="'general'"):
        sequence_encoder_decoder(**SIZES, attention="dot")


def reversals(count: int, seed: int) -> SequencePairs:
    rng = np.random.default_rng(seed)
    words = [rng.choice(list("abcd"), rng.integers(1, 7)).tolist() for _ in range(count)]
    return SequencePairs(words, [word[::-1] for word in words])


@pytest.mark.slow
def test_a_trained_model_reverses_words():
    train, unseen = reversals(400, 0), reversals(60, 1)
    preprocessor = PairPreprocessor.from_data(train)
    keras.utils.set_random_seed(0)
    model = sequence_encoder_decoder(**preprocessor.model_arguments(), units=32, embedding_dim=16)
    batches = preprocessor.batches(train, batch_size=32)
    rate = keras.optimizers.schedules.CosineDecay(0.01, 20 * len(batches))
    model.compile(keras.optimizers.Adam(rate, global_clipnorm=1.0), crossentropy())
    model.fit(batches, epochs=20, verbose=0)
    generated = model.generate(preprocessor.encode_sources(unseen.sources), max_length=10)
    predicted = preprocessor.decode(generated.sequences)
    right = [
        sequence == list(target) for sequence, target in zip(predicted, unseen.targets, strict=True)
    ]
    assert np.mean(right) > 0.8


def test_pairs_are_read_from_columns_and_from_two_files(tmp_path):
    (tmp_path / "words.tsv").write_text("ab c\tx y\n\tz\n", encoding="utf-8")
    pairs = read_sequence_pairs(tmp_path / "words.tsv", source_units="characters")
    assert pairs.sources == (("a", "b", " ", "c"), ()) and pairs.targets == (("x", "y"), ("z",))
    (tmp_path / "in").write_text("a b\nc\n")
    (tmp_path / "out").write_text("b a\nc\n")
    pairs = read_sequence_pairs(tmp_path / "in", tmp_path / "out")
    assert pairs.sources[0] == ("a", "b") and pairs.targets[0] == ("b", "a")
    first, second = reversals(10, 0).split(0.3, seed=1)
    assert (len(first), len(second)) == (7, 3)
    (tmp_path / "out").write_text("b a\n")
    with pytest.raises(DataError, match="as many lines"):
        read_sequence_pairs(tmp_path / "in", tmp_path / "out")
    with pytest.raises(DataError, match="line 1 has 1 column"):
        read_sequence_pairs(tmp_path / "in")
    with pytest.raises(DataError, match="must be one per source"):
        SequencePairs([["a"]], [["a"], ["b"]])
    with pytest.raises(DataError, match="lists of tokens"):
        SequencePairs(["ab"], [["a"]])


VECTORS = {"source_features": 3, "target_features": 2, "units": 8, "mask_value": np.nan}


@pytest.fixture(scope="module", params=slow_except([KINDS[0]], KINDS), ids=IDS)
def vector_model(request):
    keras.utils.set_random_seed(0)
    kind = request.param | ({"units": 8} if request.param["attention"] == "dot" else {})
    model = sequence_encoder_decoder(**VECTORS | kind)
    rng = np.random.default_rng(3)
    zoo.adapt(model, rng.normal(5, 2, (9, 7, 3)), target=rng.normal(-4, 3, (9, 5, 2)))
    return model


def readings() -> np.ndarray:
    x = np.random.default_rng(4).normal(5, 2, (4, 7, 3)).astype("float32")
    x[0, 4:] = np.nan
    return x


def test_generated_readings_equal_predict_with_them_as_targets(vector_model):
    generated = vector_model.generate(readings(), max_length=6)
    assert generated.sequences.shape == (4, 6, 2) and generated.scores is None
    inputs = np.concatenate([np.zeros((4, 1, 2)), generated.sequences[:, :-1]], axis=1)
    expected = vector_model.predict([readings(), inputs], verbose=0)
    np.testing.assert_allclose(generated.sequences, expected, atol=1e-4)
    longer = np.concatenate([readings(), np.full((4, 5, 3), np.nan, "float32")], axis=1)
    padded = vector_model.generate(longer, max_length=6).sequences
    np.testing.assert_allclose(padded, generated.sequences, atol=1e-5)
    alone = vector_model.generate(readings()[:1, :4], max_length=6).sequences
    np.testing.assert_allclose(alone, generated.sequences[:1], atol=1e-5)


def test_source_and_target_are_scaled_separately():
    model = sequence_encoder_decoder(**VECTORS)
    rng = np.random.default_rng(5)
    x, y = rng.normal(5, 2, (9, 7, 3)), rng.normal(-4, 3, (9, 5, 2))
    zoo.adapt(model, x, target=y)
    for name, data in (("scale", x), ("target_scale", y), ("unscale", y)):
        mean, variance, _ = model.get_layer(name).get_weights()
        steps = data.reshape(-1, data.shape[-1])
        np.testing.assert_allclose(mean, steps.mean(0), rtol=1e-5)
        np.testing.assert_allclose(variance, steps.var(0), rtol=1e-5)
    with pytest.raises(ArgumentError, match="`target`"):
        zoo.adapt(model, x)
    with pytest.raises(DataError, match=r"\(batch, time, 2\)"):
        zoo.adapt(model, x, target=x)
    with pytest.raises(ArgumentError, match="`target`"):
        zoo.adapt(zoo.get("simple_rnn_identity", features=3), x, target=y)
    with pytest.raises(ArgumentError, match="'greedy'"):
        model.generate(readings(), strategy="beam")


@pytest.mark.slow
def test_a_trained_model_forecasts_sine_waves():
    """The phases differ by row; 20 steps are the source, the next 10 the target."""
    phase = np.random.default_rng(6).uniform(0, 6.28, (300, 1))
    waves = 10 + np.sin(phase + 0.5 * np.arange(30))[..., None].astype("float32")
    x, y = waves[:, :20], waves[:, 20:]
    keras.utils.set_random_seed(0)
    model = sequence_encoder_decoder(units=24, attention=None)
    zoo.adapt(model, x[:250], target=y[:250])
    model.compile(keras.optimizers.Adam(0.01), "mse")
    inputs = np.concatenate([np.zeros((300, 1, 1)), y[:, :-1]], axis=1)
    model.fit([x[:250], inputs[:250]], y[:250], epochs=40, verbose=0)
    forecast = model.generate(x[250:], max_length=10).sequences
    assert np.mean((forecast - y[250:]) ** 2) < 0.1 * y.var()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target_vocabulary_size": 4}, "`target_vocabulary_size`"),
        ({"target_vocabulary_size": 6, "target_features": 2}, "not both"),
        ({"source_vocabulary_size": 6, "source_features": 2}, "not both"),
        ({"target_features": 0}, "`target_features`"),
        ({"attention": "luong"}, "`attention`"),
        ({"attention": "multi_head", "units": 6}, "multiple of `num_heads`"),
        ({"cell": "rnn"}, "`cell`"),
        ({"dropout": 1.0}, "`dropout`"),
    ],
)
def test_invalid_arguments_are_rejected(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        sequence_encoder_decoder(**arguments)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
def test_smoothed_crossentropy_equals_keras_on_one_hot_targets(label_smoothing):
    rng = np.random.default_rng(7)
    y = rng.integers(0, 5, (3, 4))
    scores = rng.normal(size=(3, 4, 5))
    probabilities = softmax(scores)
    loss = layers.SmoothedCrossentropy(label_smoothing)(y, probabilities)
    reference = keras.losses.CategoricalCrossentropy(label_smoothing=label_smoothing)
    np.testing.assert_allclose(loss, reference(np.eye(5)[y], probabilities), rtol=1e-5)


@pytest.mark.slow
def test_ensemble_generates_with_the_mean_probability_of_its_models():
    keras.utils.set_random_seed(3)
    models = [
        sequence_encoder_decoder(**SIZES),
        sequence_encoder_decoder(**SIZES, cell="lstm", attention="additive"),
    ]
    for model in models:
        for weight in model.trainable_weights:
            weight.assign(2 * weight)
    source = sources()
    alone = layers.Ensemble(models[:1]).generate(source, max_length=5)
    np.testing.assert_array_equal(
        alone.sequences, models[0].generate(source, max_length=5).sequences
    )
    ensemble = layers.Ensemble(models)
    generated = ensemble.generate(source, max_length=5, strategy="beam", return_attention=True)
    assert generated.attention.shape == (4, 5, 7)
    for row in range(4):
        tokens = [*without_padding(generated.sequences[row]), END][:5]
        target = np.array([[START, *tokens[:-1]]], "int32")
        mean = np.mean([model.predict([source[[row]], target], verbose=0) for model in models], 0)
        expected = sum(np.log(mean[0, step, token]) for step, token in enumerate(tokens))
        assert generated.scores[row] == pytest.approx(expected, abs=2e-5)
    with pytest.raises(ArgumentError, match="2 kinds"):
        layers.Ensemble(
            [models[0], sequence_encoder_decoder(**SIZES | {"target_vocabulary_size": 9})]
        )
    with pytest.raises(ArgumentError, match="2 kinds"):
        layers.Ensemble(
            [models[0], sequence_encoder_decoder(**SIZES | {"source_vocabulary_size": 6})]
        )
    with pytest.raises(ArgumentError, match="at least one"):
        layers.Ensemble([])
