"""Local injectivity with collisions, and exact inversion of SimpleRNN models."""

import json

import keras
import numpy as np
import pytest
from keras import ops

import keras_seqzoo as zoo
from keras_seqzoo.errors import ArgumentError, DataError, SeqZooError


def readings(seed, rows=4, steps=12, features=3):
    return np.random.default_rng(seed).normal(size=(rows, steps, features)).astype("float32")


def randomize(model, seed, scale=0.5):
    """Sets random, distinct, moderate weights, biases included."""
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        shapes = [weight.shape for weight in layer.get_weights()]
        layer.set_weights([scale * rng.normal(size=shape) / np.sqrt(shape[0]) for shape in shapes])
    return model


def simple_rnn(features=3, units=5, *, head=None, seed=0, **options):
    inputs = keras.Input((None, features))
    options = {"return_sequences": True, "name": "recurrent"} | options
    x = keras.layers.SimpleRNN(units, **options)(inputs)
    if head is not None:
        x = keras.layers.Dense(head, name="head")(x)
    return randomize(keras.Model(inputs, x), seed)


def relative_error(inverse, x):
    return np.abs(inverse - x).max() / np.abs(x).max()


# ------------------------------------------------------------------------------------ injectivity


def linear_matrix(model, steps, features):
    """A linear model as a matrix, column by column."""
    basis = np.eye(steps * features, dtype="float32").reshape(-1, steps, features)
    zero = model.predict_on_batch(basis[:1] * 0)
    return (model.predict_on_batch(basis) - zero).reshape(steps * features, -1).T


def test_singular_values_of_a_linear_model_match_its_matrix():
    model = simple_rnn(activation=None)
    report = zoo.diagnostics.injectivity(model, readings(0, steps=6))
    values = np.linalg.svd(linear_matrix(model, 6, 3), compute_uv=False)
    np.testing.assert_allclose(report.singular_values, np.tile(values, (4, 1)), rtol=1e-4)
    np.testing.assert_allclose(report.condition, values[0] / values[-1], rtol=1e-3)
    assert report.injective.all()
    assert report.collisions == (None,) * 4
    assert np.isnan(report.input_distance).all()


def test_jacobian_matches_finite_differences(float64):
    model = simple_rnn(units=2)
    x = readings(1, rows=1, steps=4).astype("float64")
    step = 1e-6 * np.eye(12).reshape(12, 4, 3)
    ahead, behind = (model.predict_on_batch(x + sign * step) for sign in (1, -1))
    matrix = ((ahead - behind) / 2e-6).reshape(12, -1).T
    values = np.linalg.svd(matrix, compute_uv=False)
    report = zoo.diagnostics.injectivity(model, x)
    np.testing.assert_allclose(report.singular_values[0], values, rtol=1e-6)
    assert report.rank == 8
    assert report.output_distance < 1e-12
    assert report.input_distance > 0.1


@pytest.mark.parametrize("cell", ["SimpleRNN", "GRU", "LSTM"])
def test_rank_deficient_model_has_a_collision_for_each_row(cell):
    inputs = keras.Input((None, 3))
    model = keras.Model(inputs, getattr(keras.layers, cell)(2, return_sequences=True)(inputs))
    x = readings(2, steps=6)
    report = zoo.diagnostics.injectivity(model, x)
    np.testing.assert_array_equal(report.rank, 12)
    np.testing.assert_array_equal(report.inputs, 18)
    assert not report.injective.any()
    assert np.isinf(report.condition).all()
    collisions = np.stack(report.collisions)
    distance = np.linalg.norm((collisions - x).reshape(4, -1), axis=1)
    np.testing.assert_allclose(report.input_distance, distance, rtol=1e-5)
    assert (distance > 0.5).all()
    np.testing.assert_allclose(
        model.predict_on_batch(collisions), model.predict_on_batch(x), atol=1e-5
    )
    assert (report.output_distance < 1e-5).all()
    assert "differ by" in str(report)


def test_last_state_is_not_injective_for_long_windows():
    model = simple_rnn(units=8)
    x = readings(3, rows=2, steps=5)
    assert zoo.diagnostics.injectivity(model, x).injective.all()
    last = zoo.diagnostics.injectivity(model, x, output_step=-1)
    np.testing.assert_array_equal(last.rank, 8)
    for row, collision in zip(x, last.collisions, strict=True):
        y = model.predict_on_batch(np.stack([row, collision]))[:, -1]
        np.testing.assert_allclose(*y, atol=1e-5)


def test_gauss_newton_projects_onto_a_curved_level_set(doubles):
    report = zoo.diagnostics.injectivity(lambda x: ops.sum(x**2, -1), np.array([[[3.0, 4.0]]]))
    (collision,) = report.collisions
    np.testing.assert_allclose(np.linalg.norm(collision), 5, rtol=1e-12)
    assert report.input_distance > 0.3


def test_layer_and_distance_arguments_take_effect():
    model = simple_rnn(units=5, head=1)
    x = readings(0, rows=1, steps=4)
    assert zoo.diagnostics.injectivity(model, x, layer="recurrent").injective.all()
    near, far = (
        zoo.diagnostics.injectivity(model, x, distance=size).input_distance for size in (0.1, 1.0)
    )
    assert near < 0.15 < 0.3 < far


def test_padded_inputs_are_held_fixed_and_not_counted():
    x = readings(4, rows=2, steps=8, features=3)
    x[1, 5:] = np.nan
    model = zoo.get("simple_rnn_identity", features=3, units=2, mask_value=float("nan"))
    zoo.adapt(model, x)
    report = zoo.diagnostics.injectivity(model, x)
    np.testing.assert_array_equal(report.inputs, [24, 15])
    np.testing.assert_array_equal(report.rank, [16, 10])
    assert np.isnan(report.collisions[1][5:]).all()
    short = zoo.diagnostics.injectivity(model, x[1:, :5])
    np.testing.assert_allclose(report.singular_values[1][:15], short.singular_values[0], rtol=1e-3)


def test_padded_outputs_are_not_counted():
    inputs = keras.Input((None, 3))
    x = keras.layers.Masking(-9.0)(inputs)
    outputs = keras.layers.SimpleRNN(4, return_sequences=True)(
        x
    )  # padded steps repeat the last state
    model = keras.Model(inputs, outputs)
    x = readings(0, rows=2, steps=6)
    x[:, 4:] = -9.0
    padded, short = (zoo.diagnostics.injectivity(model, rows) for rows in (x, x[:, :4]))
    np.testing.assert_allclose(padded.singular_values, short.singular_values, rtol=1e-4)
    np.testing.assert_allclose(padded.output_norm, short.output_norm, rtol=1e-4)


def test_collision_is_none_where_the_output_is_unique(doubles):
    report = zoo.diagnostics.injectivity(lambda x: x**3, np.zeros((1, 2, 1)))
    assert report.rank == 0
    assert report.collisions == (None,)
    assert "none found" in str(report)


@pytest.mark.tensorflow
def test_saved_model_is_supported(tmp_path):
    model = zoo.get("simple_rnn_identity", features=2, units=1)
    zoo.export(model, tmp_path / "served", verify=False)
    x = readings(0, rows=1, steps=5, features=2)
    served = zoo.diagnostics.injectivity(zoo.load(tmp_path / "served"), x)
    np.testing.assert_array_equal(served.rank, 5)
    assert served.output_distance < 1e-5


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": np.ones((2, 5), int)}, DataError, "tokens have no gradient"),
        ({"x": np.full((2, 5, 1), np.nan)}, DataError, "finite"),
        ({"mask": np.zeros((2, 4, 1), bool)}, DataError, "mask"),
        ({"mask": np.zeros((2, 4), bool)}, DataError, "padding alone"),
        ({"tolerance": 2}, ArgumentError, "between 0 and 1"),
        ({"distance": 0}, ArgumentError, "positive number"),
        ({"output_step": 9}, ArgumentError, "output_step"),
        ({"batch_size": 0}, ArgumentError, "positive int"),
        ({"layer": "recurrent"}, ArgumentError, "Functional"),
        ({"model": 3}, ArgumentError, "callable"),
        pytest.param(  # tensors of other backends have this method
            {"model": lambda x: (x**2).sum(-1)},
            ArgumentError,
            "differentiable",
            marks=pytest.mark.tensorflow,
        ),
        pytest.param(
            {"model": np.tanh}, ArgumentError, "differentiable", marks=pytest.mark.tensorflow
        ),
        pytest.param(  # JAX gives a gradient of zero
            {"model": lambda x: np.ones((len(x), 1), "float32")},
            ArgumentError,
            "differentiable",
            marks=pytest.mark.skipif(
                keras.backend.backend() == "jax", reason="JAX has a gradient of 0"
            ),
        ),
        ({"model": lambda x: x / 0}, DataError, "finite"),
    ],
)
def test_injectivity_raises_for_invalid_arguments(change, error, message):
    arguments = {"model": lambda x: x * 2, "x": readings(0, rows=2, steps=4)} | change
    with pytest.raises(error, match=message), np.errstate(all="ignore"):
        zoo.diagnostics.injectivity(arguments.pop("model"), arguments.pop("x"), **arguments)


def test_injectivity_of_a_token_model_raises():
    inputs = keras.Input((None,), dtype="int32")
    model = keras.Model(inputs, keras.layers.Embedding(9, 4)(inputs))
    with pytest.raises(DataError, match="tokens have no gradient"):
        zoo.diagnostics.injectivity(model, np.ones((2, 5)))


# -------------------------------------------------------------------------------------- inversion


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("activation", ["tanh", "linear", "sigmoid"])
def test_inversion_from_states_recovers_the_input(activation, seed):
    x = readings(seed, rows=8, steps=40)
    model = simple_rnn(units=9, activation=activation, seed=seed)
    inversion = zoo.diagnostics.invert(model, model.predict_on_batch(x))
    assert relative_error(inversion.x, x) < 1e-4
    kernel = model.get_layer("recurrent").get_weights()[0]
    condition = np.linalg.cond(kernel)
    np.testing.assert_allclose(inversion.conditions["recurrent"], condition, rtol=1e-5)
    assert inversion.residual < 1e-3
    assert (inversion.slope == 1) == (activation == "linear")


def test_slope_is_the_largest_of_the_inverse_activation():
    model = simple_rnn()
    states = model.predict_on_batch(readings(0))
    slope = 1 / (1 - states.astype("float64") ** 2).min()
    np.testing.assert_allclose(zoo.diagnostics.invert(model, states).slope, slope, rtol=1e-9)


def test_inversion_is_exact_in_float64(float64):
    x = readings(5).astype("float64")
    model = simple_rnn(units=3, activation="sigmoid")
    assert relative_error(zoo.diagnostics.invert(model, model.predict_on_batch(x)).x, x) < 1e-10


def test_inversion_from_the_output_of_an_identity_gives_raw_readings():
    x = [1000, 8] + [900, 7] * np.random.default_rng(6).uniform(-1, 1, (32, 20, 2))
    model = zoo.get("simple_rnn_identity", features=2, units=2)
    zoo.adapt(model, x)
    model.get_layer("recurrent").set_weights(
        [np.array([[0.5, 0.2], [-0.1, 0.6]]), np.array([[0.1, -0.2], [0.3, 0]]), np.full(2, 0.05)]
    )
    model.get_layer("readout").set_weights([np.array([[2, 0.3], [-0.2, 1.5]]), np.full(2, 0.02)])
    inversion = zoo.diagnostics.invert(model, model.predict_on_batch(x))
    assert set(inversion.conditions) == {"recurrent", "readout"}
    for feature in range(2):
        assert relative_error(inversion.x[..., feature], x[..., feature]) < 1e-4


def test_error_bound_holds_for_random_weights():
    x = np.random.default_rng(6).uniform(1, 15, (32, 12, 2))
    for seed in range(4):
        keras.utils.set_random_seed(seed)
        model = zoo.get("simple_rnn_identity", features=2, units=2)
        zoo.adapt(model, x)
        inversion = zoo.diagnostics.invert(model, model.predict_on_batch(x))
        error = np.linalg.norm(inversion.x - x, axis=-1).max() / np.linalg.norm(x, axis=-1).max()
        assert error < inversion.error_bound < 1


def test_wide_identity_is_invertible_from_states_but_not_from_output():
    x = 1 + 14 * np.random.default_rng(0).uniform(size=(16, 20, 3))
    model = zoo.get("simple_rnn_identity", features=3, units=8)
    zoo.adapt(model, x)
    with pytest.raises(ArgumentError, match=r"'readout'.*full row rank.*layer="):
        zoo.diagnostics.invert(model, model.predict_on_batch(x))
    states = keras.Model(model.input, model.get_layer("recurrent").output).predict_on_batch(x)
    assert relative_error(zoo.diagnostics.invert(model, states, layer="recurrent").x, x) < 1e-4


@pytest.mark.parametrize("shape", [(4,), (8, 4)])
def test_inversion_uses_the_initial_state(shape):
    inputs, state = keras.Input((None, 2)), keras.Input((4,))
    layer = keras.layers.SimpleRNN(4, return_sequences=True, name="recurrent")
    model = randomize(keras.Model([inputs, state], layer(inputs, initial_state=state)), 1)
    x = readings(0, rows=8, features=2)
    start = np.random.default_rng(1).uniform(-0.9, 0.9, shape)
    y = model.predict_on_batch([x, np.broadcast_to(start, (8, 4))])
    assert relative_error(zoo.diagnostics.invert(model, y, initial_state=start).x, x) < 1e-4
    with pytest.raises(ArgumentError, match="must be known"):
        zoo.diagnostics.invert(model, y)
    with pytest.raises(DataError, match="another initial state"):
        zoo.diagnostics.invert(model, y, initial_state=np.zeros(4))
    with pytest.raises(DataError, match=r"\(8, 4\)"):
        zoo.diagnostics.invert(model, y, initial_state=np.zeros(3))


def test_every_invertible_layer_type_is_inverted():
    x = 5 + 3 * readings(0, rows=16, features=2)
    scaling = keras.layers.Normalization(name="scaling")
    scaling.adapt(x)
    nested = keras.Sequential([keras.Input((None, 3)), keras.layers.Dense(4, name="inner")])
    model = keras.Sequential(
        [
            keras.Input((12, 2)),
            scaling,
            keras.layers.Rescaling(0.5, offset=0.1),
            keras.layers.Dense(3, activation="tanh", name="wider"),
            keras.layers.Dropout(0.5),
            nested,
            keras.layers.SimpleRNN(5, return_sequences=True, name="first"),
            zoo.layers.SimpleRNN(6, return_sequences=True, use_bias=False, name="second"),
            keras.layers.Dense(6, use_bias=False, name="head"),
            keras.layers.Activation("sigmoid"),
            keras.layers.Normalization(mean=3.0, variance=4.0, invert=True),
        ]
    )
    rng = np.random.default_rng(3)
    for layer in (*nested.layers, *model.layers):
        if layer not in (scaling, nested):  # near the identity: well conditioned
            shapes = [weight.shape for weight in layer.get_weights()]
            layer.set_weights(
                [0.5 * np.eye(*shape) + 0.1 * rng.normal(size=shape)
                 if len(shape) > 1 else 0.1 * rng.normal(size=shape) for shape in shapes]
            )  # fmt: skip
    inversion = zoo.diagnostics.invert(model, model.predict_on_batch(x))
    assert relative_error(inversion.x, x) < 1e-4
    assert set(inversion.conditions) == {"wider", "inner", "first", "second", "head"}
    np.testing.assert_allclose(inversion.condition, np.prod(list(inversion.conditions.values())))


def masked_identity():
    return zoo.get("simple_rnn_identity", features=3, units=3, mask_value=0.0)


def followed_by_rnn(first):
    recurrent = keras.layers.SimpleRNN(4, return_sequences=True)
    return keras.Sequential([keras.Input((None, 3)), first, recurrent])


def rank_deficient():
    model = simple_rnn()
    weights = model.get_weights()
    weights[0][2] = weights[0][0] + weights[0][1]
    model.set_weights(weights)
    return model


def gated(cell):
    inputs = keras.Input((None, 3))
    return keras.Model(inputs, getattr(keras.layers, cell)(4, return_sequences=True)(inputs))


def last_state_of_two():
    inputs = keras.Input((None, 3))
    x = keras.layers.SimpleRNN(4, return_sequences=True, return_state=True)(inputs)[1]
    return keras.Model(inputs, x)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: simple_rnn(activation="relu"), "activation.*relu"),
        (lambda: simple_rnn(units=2), "kernel of layer 'recurrent'.*full row rank.*several inputs"),
        (rank_deficient, "kernel of layer 'recurrent'.*rank 2"),
        (lambda: simple_rnn(units=5, head=4), "kernel of layer 'head'.*states do not follow"),
        (lambda: simple_rnn(return_sequences=False), "return_sequences=True"),
        (lambda: simple_rnn(go_backwards=True), "go_backwards=False"),
        (masked_identity, "no mask"),
        (lambda: followed_by_rnn(keras.layers.Masking()), "no mask"),
        (lambda: gated("GRU"), "must have a SimpleRNN"),
        (lambda: followed_by_rnn(keras.layers.GRU(4, return_sequences=True)), "a GRU"),
        (lambda: followed_by_rnn(keras.layers.LayerNormalization()), "a LayerNormalization"),
    ],
)
def test_error_of_invert_contains_the_failing_condition_and_the_next_step(build, message):
    model = build()
    x = readings(0)
    with pytest.raises(ArgumentError, match=message) as caught:
        zoo.diagnostics.invert(model, model.predict_on_batch(x))
    assert "train a decoder" in str(caught.value)
    assert "'attention_autoencoder'" in str(caught.value)
    assert "recoverability" in str(caught.value)


def test_saturated_states_raise():
    model = randomize(simple_rnn(), 0, scale=9)
    with pytest.raises(DataError, match=r"saturated.*inverse of tanh"):
        zoo.diagnostics.invert(model, model.predict_on_batch(readings(0)))
    with pytest.raises(DataError, match="saturated"):
        zoo.diagnostics.invert(simple_rnn(), np.full((2, 3, 5), 1.5))


def test_states_of_another_model_raise():
    with pytest.raises(DataError, match="no input explains"):
        zoo.diagnostics.invert(simple_rnn(seed=1), simple_rnn(seed=0).predict_on_batch(readings(0)))


def test_stateful_layer_requires_initial_state():
    inputs = keras.Input((None, 3), batch_size=4)
    layer = keras.layers.SimpleRNN(5, return_sequences=True, stateful=True)
    model = keras.Model(inputs, layer(inputs))
    x = readings(0)
    y = model.predict_on_batch(x)
    with pytest.raises(ArgumentError, match="stateful"):
        zoo.diagnostics.invert(model, y)
    assert relative_error(zoo.diagnostics.invert(model, y, initial_state=np.zeros(5)).x, x) < 1e-4


def test_initial_state_raises_for_several_recurrent_layers():
    first = keras.layers.SimpleRNN(4, return_sequences=True)
    with pytest.raises(ArgumentError, match="2 SimpleRNN layers"):
        zoo.diagnostics.invert(
            followed_by_rnn(first), np.zeros((2, 5, 4)), initial_state=np.zeros(4)
        )


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.zeros((2, 5, 4)), r"\(batch, any, 5\)"),
        (np.zeros((5, 5)), r"\(batch, any, 5\)"),
        (np.zeros((0, 5, 5)), r"\(batch, any, 5\)"),
        (np.full((2, 5, 5), np.nan), "finite"),
        (np.zeros((2, 5, 5), complex), "numeric"),
        ([[1], [2, 3]], "one array"),
    ],
)
def test_invert_raises_for_an_invalid_output(y, message):
    with pytest.raises(DataError, match=message):
        zoo.diagnostics.invert(simple_rnn(), y)


def test_invert_raises_for_functions_and_unknown_layers():
    with pytest.raises(ArgumentError, match="Functional"):
        zoo.diagnostics.invert(lambda x: x, np.zeros((2, 5, 5)))
    with pytest.raises(ArgumentError, match="recurrent"):
        zoo.diagnostics.invert(simple_rnn(), np.zeros((2, 5, 5)), layer="recurent")
    with pytest.raises(SeqZooError, match="first output"):
        zoo.diagnostics.invert(last_state_of_two(), np.zeros((2, 4)))


def test_inversion_and_injectivity_report_print_and_serialize():
    model = simple_rnn()
    inversion = zoo.diagnostics.invert(model, model.predict_on_batch(readings(0)))
    assert "condition" in str(inversion)
    assert json.loads(json.dumps(inversion.to_dict()))["condition"] == inversion.condition
    report = zoo.diagnostics.injectivity(simple_rnn(units=2), readings(0, rows=1, steps=3))
    plain = json.loads(json.dumps(report.to_dict()))
    assert plain["rank"] == [6]
    assert np.shape(plain["collisions"][0]) == (3, 3)
