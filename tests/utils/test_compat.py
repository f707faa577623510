"""Private APIs of other libraries do what `keras_seqzoo.utils.compat` relies on.

A test that fails after an upgrade names the private API that has changed; the docstring of the
function gives the replacement.
"""

import ast
import gc
import importlib
import inspect
import io
import pkgutil
import zipfile
from pathlib import Path

import keras
import numpy as np
import optuna
import pytest
from keras import ops

import keras_seqzoo
from keras_seqzoo.utils import compat

PACKAGE = Path(keras_seqzoo.__file__).parent
needs_tensorflow = pytest.mark.tensorflow


@pytest.fixture
def nested() -> keras.Model:
    """Two layers, the second a model with an RNN whose cell is a layer."""
    inner = keras.Sequential(
        [
            keras.Input((None, 2)),
            keras.layers.RNN(keras.layers.GRUCell(3, name="cell"), name="rnn"),
        ],
        name="inner",
    )
    inputs = keras.Input((None, 2), name="inputs")
    x = keras.layers.Dense(2, name="dense")(inputs)
    return keras.Model(inputs, inner(x) * 2.0, name="outer")


# ------------------------------------------------------------------------- the graph of a model


def test_flatten_layers_finds_models_layers_and_cells(nested):
    names = {layer.name for layer in compat.flatten_layers(nested)}
    assert {"outer", "inputs", "dense", "inner", "rnn", "cell"} <= names
    assert compat.flatten_layers(nested)[0] is nested


def test_inbound_nodes_are_the_calls_of_a_layer_in_order():
    layer = keras.layers.Dense(2)
    first, second = keras.Input((2,)), keras.Input((2,))
    outputs = [layer(first), layer(second)]
    nodes = compat.inbound_nodes(layer)
    assert [node.input_tensors[0] for node in nodes] == [first, second]
    assert [node.output_tensors[0] for node in nodes] == outputs
    assert not any(node.is_input for node in nodes)


def test_inbound_nodes_keep_the_arguments_of_a_call():
    x, state = keras.Input((None, 2)), keras.Input((3,))
    layer = keras.layers.SimpleRNN(3)
    layer(x, initial_state=state)
    arguments = compat.inbound_nodes(layer)[0].arguments
    assert arguments.args[0] is x
    assert arguments.kwargs["initial_state"] is state


def test_inbound_nodes_mark_inputs(nested):
    assert [node.is_input for node in compat.inbound_nodes(nested.get_layer("inputs"))] == [True]


def test_keras_history_has_the_layer_of_a_tensor():
    rnn = keras.layers.SimpleRNN(3, return_state=True)
    x = keras.Input((None, 2))
    rnn(x)
    _, state = rnn(x)
    history = compat.keras_history(state)
    assert history.operation is rnn
    assert tuple(history) == (rnn, 1, 1)


def test_run_through_graph_replaces_every_call(nested):
    called = []

    def call(operation, *args, **kwargs):
        called.append(operation.name)
        return operation(*args, **kwargs) + 1.0

    x = np.ones((1, 4, 2), "float32")
    outputs = compat.run_through_graph(nested, x, call)
    assert called[:2] == ["dense", "inner"]
    assert len(called) == 3
    expected = 2.0 * (nested.get_layer("inner")(nested.get_layer("dense")(x) + 1.0) + 1.0) + 1.0
    np.testing.assert_allclose(outputs, expected, rtol=1e-6)


def test_run_through_graph_accepts_a_keras_function(nested):
    function = keras.Function(nested.inputs, nested.outputs)
    x = np.ones((1, 4, 2), "float32")
    outputs = compat.run_through_graph(function, [x], lambda op, *args, **kwargs: op(*args))
    np.testing.assert_allclose(outputs[0], nested(x), rtol=1e-6)


def test_standardize_inputs_orders_and_casts():
    inputs = [keras.Input((2,), name="a"), keras.Input((3,), dtype="int32", name="b")]
    model = keras.Model(inputs, [keras.layers.Identity()(one) for one in inputs])
    inputs = {"b": ops.zeros((1, 3), "int64"), "a": ops.zeros((1, 2), "float64")}
    standardized = compat.standardize_inputs(model, inputs)
    shapes = [tuple(one.shape) for one in standardized]
    dtypes = [keras.backend.standardize_dtype(one.dtype) for one in standardized]
    assert (shapes, dtypes) == ([(1, 2), (1, 3)], ["float32", "int32"])


def test_is_keras_op_distinguishes_operations_from_layers():
    x = keras.Input((2,))
    assert compat.is_keras_op(compat.keras_history(ops.add(x, 1.0)).operation)
    assert compat.is_keras_op(compat.keras_history(x[:, :1]).operation)
    assert not compat.is_keras_op(compat.keras_history(keras.layers.Identity()(x)).operation)


# ------------------------------------------------------------------------------------- masks


def test_get_keras_mask_returns_the_mask_of_a_layer_output():
    masked = keras.layers.Masking()(np.array([[[1.0], [0.0]]], "float32"))
    np.testing.assert_array_equal(compat.get_keras_mask(masked), [[True, False]])
    assert compat.get_keras_mask(ops.ones((1, 2, 1))) is None


def test_set_keras_mask_is_used_by_the_next_layer():
    x = ops.convert_to_tensor(np.array([[[1.0], [5.0]]], "float32"))
    pooling = keras.layers.GlobalAveragePooling1D()
    compat.set_keras_mask(x, ops.convert_to_tensor([[True, False]]))
    np.testing.assert_allclose(pooling(x), [[1.0]])
    compat.set_keras_mask(x, None)
    np.testing.assert_allclose(pooling(x), [[3.0]])


# ------------------------------------------------------------ process-wide state, files, training


def test_name_counts_determine_the_next_default_names():
    compat.name_counts()["dense"] = 41
    assert keras.layers.Dense(1).name == "dense_41"
    assert compat.name_counts()["dense"] == 42


def test_name_counts_exist_after_the_session_is_cleared():
    keras.backend.clear_session()
    counts = compat.name_counts()
    keras.layers.Dense(1)
    assert counts is compat.name_counts()
    assert counts["dense"] == 1


def test_discarding_uninitialized_variables_leaves_none_to_allocate():
    with (
        compat.discarding_uninitialized_variables(),
        keras.StatelessScope(initialize_variables=False),
    ):
        layer = keras.layers.Dense(2)
        layer.build((None, 3))
    with keras.StatelessScope():
        pass
    assert layer.kernel.shape == (3, 2)
    assert layer.kernel._value is None


def test_load_keras_file_reads_an_open_file(nested, tmp_path):
    path = tmp_path / "model.keras"
    nested.save(path)
    x = np.ones((1, 4, 2), "float32")
    expected = nested(x)
    with open(path, "rb") as file:
        path.unlink()
        loaded = compat.load_keras_file(file, {})
    np.testing.assert_array_equal(loaded(x), expected)


def test_load_keras_file_rejects_lambda_layers(tmp_path):
    path = tmp_path / "model.keras"
    keras.Sequential([keras.Input((1,)), keras.layers.Lambda(lambda x: x)]).save(path)
    with open(path, "rb") as file, pytest.raises(ValueError, match="unsafe"):
        compat.load_keras_file(file, {})


def test_load_keras_file_accepts_custom_objects(tmp_path):
    class Doubling(keras.layers.Layer):
        def call(self, x):
            return 2 * x

    path = tmp_path / "model.keras"
    keras.Sequential([keras.Input((1,)), Doubling()]).save(path)
    with open(path, "rb") as file:
        loaded = compat.load_keras_file(file, {"Doubling": Doubling})
    np.testing.assert_array_equal(loaded(np.ones((1, 1))), [[2.0]])


@needs_tensorflow
def test_symbolic_build_builds_the_optimizer_and_metrics():
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile("adam", "mse", metrics=["mae"])
    compat.symbolic_build(model, (np.ones((4, 3), "float32"), np.ones((4, 1), "float32")))
    assert model.get_layer(index=0).kernel.shape == (3, 1)
    assert model.optimizer.built
    assert {metric.name for metric in model.metrics} == {"loss", "compile_metrics"}
    assert model.get_compile_config()["metrics"] == ["mae"]
    assert model.optimizer.iterations == 0


@needs_tensorflow
def test_replace_symbolic_build_is_called_by_fit_and_evaluate():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    calls = []

    def build(iterator=None, data_batch=None):
        calls.append(iterator)

    compat.replace_symbolic_build(model, build)
    x, y = np.ones((4, 3), "float32"), np.ones((4, 1), "float32")
    model.fit(x, y, verbose=0)
    model.evaluate(x, y, verbose=0)
    assert len(calls) == 2
    _, _, batches = next(iter(calls[0]))
    assert next(batches)[0].shape == (4, 3)


def test_adam_moments_are_those_of_the_variable():
    first, second = (keras.Variable(np.zeros(size, "float32")) for size in (2, 3))
    optimizer = keras.optimizers.Adam(beta_1=0.5, beta_2=0.75)
    optimizer.build([first, second])
    optimizer.apply([ops.ones(2), 2 * ops.ones(3)])
    momentum, velocity = compat.adam_moments(optimizer, second)
    np.testing.assert_allclose(momentum, [1.0] * 3, rtol=1e-6)  # (1 - beta_1) * gradient
    np.testing.assert_allclose(velocity, [1.0] * 3, rtol=1e-6)  # (1 - beta_2) * gradient ** 2


@needs_tensorflow
def test_variable_handle_is_the_resource_of_keras_and_tensorflow_variables():
    import tensorflow as tf

    for variable in (keras.Variable([1.0, 2.0]), tf.Variable([1.0, 2.0])):
        handle = compat.variable_handle(variable)
        tf.raw_ops.AssignVariableOp(resource=handle, value=[3.0, 4.0])
        np.testing.assert_array_equal(variable, [3.0, 4.0])


# -------------------------------------------------------------------------------- TensorFlow


@needs_tensorflow
@pytest.mark.parametrize("jit_compile", [False, True])
def test_in_xla_context_is_true_while_tracing_for_xla(jit_compile):
    import tensorflow as tf

    traced = []

    @tf.function(jit_compile=jit_compile, autograph=False)
    def function(x):
        traced.append(compat.in_xla_context())
        return x + 1

    function(tf.ones(1))
    assert set(traced) == {jit_compile}
    assert not compat.in_xla_context()


@needs_tensorflow
def test_clear_kernel_cache_keeps_functions_callable():
    import tensorflow as tf

    function = tf.function(lambda x: x + 1)
    before = function(tf.ones(2))
    compat.clear_kernel_cache()
    np.testing.assert_array_equal(function(tf.ones(2)), before)


@needs_tensorflow
def test_the_gradient_registry_can_be_read_replaced_and_emptied():
    import tensorflow as tf

    @tf.custom_gradient
    def tripled(x):
        return 3 * x, lambda upstream: 30 * upstream

    names, registered = [], compat.registered_gradients()

    @tf.function(autograph=False)
    def function(x):
        y = tripled(x)
        names.append(compat.gradient_name(y))
        return y

    x = tf.ones(1)
    function(x)
    gradient = compat.get_gradient(names[-1])
    compat.replace_gradient(
        names[-1], lambda op, *upstream: gradient(op, *(2 * one for one in upstream))
    )
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = function(x)
    np.testing.assert_array_equal(tape.gradient(y, x), [60.0])
    assert compat.registered_gradients() - registered == set(names)
    for name in (*names, "no such gradient"):
        compat.remove_gradient(name)
    assert compat.registered_gradients() == registered


@needs_tensorflow
def test_remove_gradient_frees_the_graph():
    import weakref

    import tensorflow as tf

    registered = compat.registered_gradients()

    @tf.custom_gradient
    def tripled(x):
        return 3 * x, lambda upstream: 30 * upstream

    function = tf.function(tripled).get_concrete_function(tf.TensorSpec([1]))
    graph = weakref.ref(function.graph)
    del function, tripled
    gc.collect()
    assert graph() is not None, "TensorFlow frees graphs by itself: delete what compat removes"
    for name in compat.registered_gradients() - registered:
        compat.remove_gradient(name)
    gc.collect()
    assert graph() is None


@needs_tensorflow
def test_op_definition_identifies_stateful_operations():
    assert compat.op_definition("WriteFile").is_stateful
    assert not compat.op_definition("MatMul").is_stateful
    assert compat.op_definition("NoSuchOperation") is None


@needs_tensorflow
def test_parse_saved_model_reads_the_graph_of_a_file(tmp_path):
    import tensorflow as tf
    from google.protobuf.message import DecodeError

    module = tf.Module()
    module.call = tf.function(lambda x: tf.nn.relu(x), input_signature=[tf.TensorSpec([None])])
    tf.saved_model.save(module, tmp_path)
    data = (tmp_path / "saved_model.pb").read_bytes()
    (graph,) = compat.parse_saved_model(data).meta_graphs
    functions = graph.graph_def.library.function
    assert "Relu" in {node.op for function in functions for node in function.node_def}
    with pytest.raises(DecodeError):
        compat.parse_saved_model(data[:-5])


# ------------------------------------------------------------------------------------ Optuna


def test_trial_id_is_the_key_of_the_storage_and_cached_storage_reads_the_database():
    database = optuna.storages.RDBStorage("sqlite://")
    storage = compat.cached_storage(database)
    for _ in range(2):  # so that ids and numbers of the second study differ
        study = optuna.create_study(storage=storage)
        for value in (1.0, 2.0):
            study.tell(study.ask(), value)
    for trial in study.trials:
        key = compat.trial_id(trial)
        assert key != trial.number
        for source in (storage, database):
            assert source.get_trial(key).value == trial.value
    frozen = [source.get_trial(compat.trial_id(study.trials[0])) for source in (storage, storage)]
    assert frozen[0] is frozen[1], "a cached storage reads a finished trial once"


# ------------------------------------------------------------------------ the standard library


def test_zip_directory_size_counts_the_bytes_of_the_directory():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.txt", b"one")
        archive.writestr("bc.txt", b"two")
    assert compat.zip_directory_size(file) == 2 * 46 + len("a.txt") + len("bc.txt")


def test_zip_directory_size_of_other_files_is_none():
    assert compat.zip_directory_size(io.BytesIO(b"no zip archive" * 10)) is None


# ------------------------------------------------------------------ overridden private methods


OVERRIDDEN = {
    ("Adam", "_all_reduce_sum_gradients"),
    ("Adam", "_clip_gradients"),
    ("Search", "_populate_initial_space"),
    ("StudyOracle", "_save_trial"),
    ("_FusedRNN", "_maybe_config_dropout_masks"),
}


def modules():
    for module in pkgutil.walk_packages(keras_seqzoo.__path__, "keras_seqzoo."):
        yield importlib.import_module(module.name)


def test_overridden_private_methods_are_listed():
    overridden = set()
    for module in modules():
        for cls in filter(inspect.isclass, vars(module).values()):
            if cls.__module__ != module.__name__:
                continue
            foreign = [
                base
                for base in cls.__mro__[1:]
                if base.__module__.split(".")[0] in ("keras", "keras_tuner", "optuna", "tensorflow")
            ]
            overridden |= {
                (cls.__name__, name)
                for base in foreign
                for name in vars(cls)
                if is_private(name)
                and name in vars(base)
                and inspect.isfunction(vars(cls)[name])
                and vars(cls)[name].__module__ == module.__name__
            }
    assert overridden == OVERRIDDEN


@needs_tensorflow
def test_keras_optimizers_call_the_private_methods_that_adam_overrides():
    called = []

    class Recording(keras.optimizers.Adam):
        def _clip_gradients(self, grads):
            called.append("_clip_gradients")
            return super()._clip_gradients(grads)

        def _all_reduce_sum_gradients(self, grads_and_vars):
            called.append("_all_reduce_sum_gradients")
            return super()._all_reduce_sum_gradients(grads_and_vars)

    variable = keras.Variable([1.0])
    Recording(global_clipnorm=1.0).apply([ops.ones(1)], [variable])
    assert set(called) == {"_clip_gradients", "_all_reduce_sum_gradients"}


def test_recurrent_layers_of_keras_call_the_private_method_that_fused_layers_override():
    called = []

    class Recording(keras.layers.GRU):
        def _maybe_config_dropout_masks(self, cell, input_sequence, input_state):
            called.append("_maybe_config_dropout_masks")
            super()._maybe_config_dropout_masks(cell, input_sequence, input_state)

    Recording(2, dropout=0.5)(ops.ones((1, 3, 1)), training=True)
    assert called


def test_keras_tuner_calls_the_private_methods_that_the_search_overrides(tmp_path):
    import keras_tuner

    called = []

    class Oracle(keras_tuner.oracles.RandomSearchOracle):
        def _save_trial(self, trial):
            called.append("_save_trial")

    class Tuner(keras_tuner.Tuner):
        def _populate_initial_space(self):
            called.append("_populate_initial_space")

    def build(hp):
        raise AssertionError("KerasTuner builds a model to find the search space")

    oracle = Oracle(objective=keras_tuner.Objective("loss", "min"), max_trials=1)
    Tuner(oracle, build, directory=tmp_path, project_name="search")
    oracle.create_trial("tuner0")
    assert set(called) == {"_populate_initial_space", "_save_trial"}


# -------------------------------------------------------------- private names outside compat.py

PRIVATE_MODULES = (
    "keras.src", "keras_tuner.src", "tensorflow.core", "tensorflow.python", "torch._",
)  # fmt: skip
NAMED_TUPLE = {"_asdict", "_fields", "_make", "_replace"}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__") and name != "_"


def private_uses(tree: ast.AST, own: set[str]):
    """Lines of a module that use a private name which is not the package's own."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            if node.attr == "__internal__" or (is_private(node.attr) and node.attr not in own):
                yield node.lineno, node.attr
        elif isinstance(node, ast.Import | ast.ImportFrom):
            parts = [alias.name for alias in node.names]
            if isinstance(node, ast.ImportFrom):
                parts = [f"{node.module}.{part}" for part in parts]
            for name in parts:
                foreign = not name.startswith(("keras_seqzoo.", "__future__"))
                if foreign and (
                    name.startswith(PRIVATE_MODULES) or any(map(is_private, name.split(".")))
                ):
                    yield node.lineno, name
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id in ("getattr", "setattr", "hasattr", "delattr") and len(node.args) > 1:
                name = node.args[1]
                text = name.value if isinstance(name, ast.Constant) else None
                if isinstance(text, str) and is_private(text) and text not in own:
                    yield node.lineno, text
        elif isinstance(node, ast.Constant) and str(node.value).startswith(PRIVATE_MODULES):
            yield node.lineno, node.value


def names_defined_in(tree: ast.AST) -> set[str]:
    """Functions, classes, variables and attributes that a module of the package defines."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            on_itself = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            names |= {node.attr} if on_itself else set()
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names


def test_private_names_of_other_libraries_are_used_in_compat_only():
    trees = {
        path: ast.parse(path.read_text(encoding="utf-8"))
        for path in sorted(PACKAGE.rglob("*.py"))
        if path != PACKAGE / "utils" / "compat.py"
    }
    own = set().union(NAMED_TUPLE, *map(names_defined_in, trees.values()))
    uses = [
        f"{path.relative_to(PACKAGE)}:{line}: {name}"
        for path, tree in trees.items()
        for line, name in private_uses(tree, own)
    ]
    assert not uses, "move these to keras_seqzoo/utils/compat.py:\n" + "\n".join(uses)


@pytest.mark.parametrize(
    "source",
    [
        "model._flatten_layers()",
        "model._run = None",
        "getattr(variable, '_value')",
        "tf.__internal__.EagerTensor",
        "from keras.src.saving import saving_lib",
        "from keras_tuner.src import engine",
        "from tensorflow.python.framework import ops",
        "from optuna.storages._cached_storage import _CachedStorage",
        "import keras.src",
        "type(operation).__module__.startswith('keras.src.ops')",
    ],
)
def test_private_uses_finds_private_names_of_other_libraries(source):
    assert list(private_uses(ast.parse(source), own={"_own"}))


@pytest.mark.parametrize("source", ["self._own", "pair._replace(x=1)", "cls.__name__"])
def test_private_uses_ignores_private_names_of_the_package(source):
    assert not list(private_uses(ast.parse(source), own={"_own"} | NAMED_TUPLE))
