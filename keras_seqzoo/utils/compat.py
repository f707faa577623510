"""Private APIs of Keras, TensorFlow, Optuna and the standard library, one function each.

No other module of the package uses a private name of another library. When an upgrade changes one,
its test in `tests/utils/test_compat.py` fails; the docstring here describes the replacement.

Tested with Keras 3.15.1, TensorFlow 2.21.0, Optuna 5.0.0 and Python 3.11. KerasTuner 1.4.8 is used
through its public API, except for two methods that are overridden: `Tuner._populate_initial_space`
and `Oracle._save_trial`. `keras_seqzoo.optimizers.Adam` overrides two of Keras's:
`Optimizer._clip_gradients` and, on TensorFlow, `Optimizer._all_reduce_sum_gradients`. The fused
recurrent layers override `RNN._maybe_config_dropout_masks`.
"""

from __future__ import annotations

import collections
import contextlib
import zipfile
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    import keras
    import optuna


# Keras: the graph of a model.


def flatten_layers(model: keras.Layer) -> list[keras.Layer]:
    """Return a model or layer and every layer inside it, at any depth.

    Why: `Model.layers` lists neither the layers of a nested model nor those that a wrapper or an
    RNN layer holds.
    If it breaks: walk `layers`, and the attributes of each layer that are layers.
    Tested: Keras 3.15.1, `Layer._flatten_layers`.
    """
    return list(model._flatten_layers())


def inbound_nodes(operation: keras.Operation) -> list[Any]:
    """Return the calls of a layer or operation on symbolic tensors, oldest first.

    A node has `arguments` (`args` and `kwargs`), `input_tensors`, `output_tensors` and `is_input`.

    Why: the public `Layer.input` and `Layer.output` fail for a layer that is called twice, and know
    nothing of the other arguments.
    If it breaks: read the calls from `Model.get_config()["layers"][...]["inbound_nodes"]`.
    Tested: Keras 3.15.1, `Operation._inbound_nodes`.
    """
    return operation._inbound_nodes


def keras_history(tensor: keras.KerasTensor) -> Any:
    """Return the named tuple `(operation, node_index, tensor_index)` that made a symbolic tensor.

    Why: no public function leads from a tensor to the layer that outputs it.
    If it breaks: search `output_tensors` of the nodes of every layer for the tensor.
    Tested: Keras 3.15.1, `KerasTensor._keras_history`.
    """
    return tensor._keras_history  # pyright: ignore[reportAttributeAccessIssue]  # private


def run_through_graph(
    function: keras.Function | keras.Model, inputs: Any, call: Callable[..., Any]
) -> Any:
    """Evaluate a functional graph with `call(operation, *args, **kwargs)` in place of each call.

    Why: streaming and the packed model of a population replace what a layer computes, and Keras has
    no public interpreter of its graphs.
    If it breaks: visit the nodes in topological order, as `keras.Function.call` does.
    Tested: Keras 3.15.1, `Function._run_through_graph`.
    """
    return function._run_through_graph(inputs, call_fn=call)


def standardize_inputs(model: keras.Model, inputs: Any) -> list[Any]:
    """Return the inputs of a functional model as a flat list, cast and reshaped as it expects.

    Why: `Functional.call` accepts lists, tuples and dicts; a subclass that changes one of the
    inputs before `super().call` needs them in order.
    If it breaks: flatten by `Model.input_names` and cast to the dtypes of `Model.inputs`.
    Tested: Keras 3.15.1, `Functional._standardize_inputs`.
    """
    return model._standardize_inputs(inputs)


def is_keras_op(operation: keras.Operation) -> bool:
    """Whether an operation of a graph comes from `keras.ops`, rather than from a layer.

    Why: the classes behind `keras.ops` functions, such as `Add`, are not public.
    If it breaks: compare with the classes of `keras.ops` functions called on a symbolic tensor.
    Tested: Keras 3.15.1, the module name `keras.src.ops`.
    """
    return type(operation).__module__.startswith("keras.src.ops")


# Keras: masks attached to tensors.


def get_keras_mask(tensor: Any) -> Any:
    """Return the mask that Keras attached to a tensor, or None.

    Why: a layer that is called outside a model leaves the mask of its output there alone.
    If it breaks: read the attribute `_keras_mask` of the tensor.
    Tested: Keras 3.15.1, `keras.src.backend.common.masking`.
    """
    from keras.src.backend.common import masking

    return masking.get_keras_mask(tensor)


def set_keras_mask(tensor: Any, mask: Any) -> None:
    """Attach a mask to a tensor, so that the next layer receives it; None removes it.

    Why: Keras passes masks on only between calls of its own layers.
    If it breaks: pass `mask=` to each layer whose `call` accepts it.
    Tested: Keras 3.15.1, `keras.src.backend.common.masking`.
    """
    from keras.src.backend.common import masking

    masking.set_keras_mask(tensor, mask)


# Keras: process-wide state, files and training.


def name_counts() -> dict[str, int]:
    """Return the live counters from which Keras numbers default names, such as `dense_1`.

    Why: counters that are restored after a trial keep the names of the user's next layers, and
    those of every trial, as they would have been. `keras.utils.get_uid` can only increase them.
    If it breaks: let the counters grow. TensorFlow keeps 34 kB for each variable with a new name.
    Tested: Keras 3.15.1, `global_state`, "object_name_uids".
    """
    from keras.src.backend.common import global_state

    counts = global_state.get_global_attribute("object_name_uids")
    if counts is None:
        counts = collections.defaultdict(int)
        global_state.set_global_attribute("object_name_uids", counts)
    return counts


@contextlib.contextmanager
def discarding_uninitialized_variables() -> Iterator[None]:
    """Forget the variables without a value that are created inside.

    Why: Keras lists variables of a `StatelessScope(initialize_variables=False)`, and allocates them
    when any later scope ends.
    If it breaks: build the model in another process, or with `compute_output_spec`.
    Tested: Keras 3.15.1, `global_state`, "uninitialized_variables".
    """
    from keras.src.backend.common import global_state

    name = "uninitialized_variables"
    before = list(global_state.get_global_attribute(name) or [])
    try:
        yield
    finally:
        global_state.set_global_attribute(name, before)


def load_keras_file(file: BinaryIO, custom_objects: dict[str, Any]) -> Any:
    """Load a model in the `.keras` format from an open file, in safe mode.

    Why: `keras.saving.load_model` takes a path. Between the checks of a file and its loading
    another process could replace what is at the path.
    If it breaks: copy the checked bytes to a private temporary file, and load that.
    Tested: Keras 3.15.1, `keras.src.saving.saving_lib.load_model`.
    """
    from keras.src.saving import saving_lib

    return saving_lib.load_model(file, custom_objects, safe_mode=True)


def symbolic_build(model: keras.Model, data_batch: Any) -> None:
    """Build a compiled model, its metrics and its optimizer from the shapes of one batch.

    Why: `fit` does so with its first batch, but under `MultiWorkerMirroredStrategy` it fails
    ([keras#20585](https://github.com/keras-team/keras/issues/20585)).
    If it breaks: call the model and its metrics on zeros, and build the optimizer.
    Tested: Keras 3.15.1 on TensorFlow, `Trainer._symbolic_build`.
    """
    model._symbolic_build(data_batch=data_batch)


def replace_symbolic_build(model: keras.Model, build: Callable[..., None]) -> None:
    """Make `fit` and `evaluate` build a model with `build(iterator=None, data_batch=None)`.

    Why: see `symbolic_build`.
    If it breaks: see whether `fit` works under `MultiWorkerMirroredStrategy` by now.
    Tested: Keras 3.15.1 on TensorFlow, `TensorFlowTrainer._maybe_symbolic_build`.
    """
    model._maybe_symbolic_build = build


def adam_moments(optimizer: keras.optimizers.Adam, variable: Any) -> tuple[Any, Any]:
    """Return the first and second moment that Adam keeps for a trainable variable.

    Why: `Optimizer.variables` lists them for all variables in an order of its own.
    If it breaks: find them in `Optimizer.variables` by their paths.
    Tested: Keras 3.15.1, `_get_variable_index`, `_momentums` and `_velocities`.
    """
    index = optimizer._get_variable_index(variable)
    return optimizer._momentums[index], optimizer._velocities[index]


def variable_handle(variable: Any) -> Any:
    """Return the TensorFlow resource of a variable of Keras or of TensorFlow.

    Why: `tf.raw_ops` take resources, and `keras.Variable.value` is a tensor inside some scopes.
    If it breaks: use `keras.Variable.value`.
    Tested: Keras 3.15.1 on TensorFlow, `Variable._value`.
    """
    return getattr(variable, "_value", variable).handle


# TensorFlow.


def in_xla_context() -> bool:
    """Whether the current TensorFlow function is being traced to be compiled by XLA.

    Why: what is fast in a TensorFlow graph is slow under XLA, and the other way round; a function
    with `jit_compile=True` cannot be nested in another.
    If it breaks: pass a flag to the layers instead.
    Tested: TensorFlow 2.21.0, `tf.__internal__.get_enclosing_xla_context`.
    """
    import tensorflow as tf

    return tf.__internal__.get_enclosing_xla_context() is not None


def clear_kernel_cache() -> None:
    """Free the kernels that TensorFlow keeps for each operation and function that ran eagerly.

    Why: they are kept for the life of the process, also those of models that are deleted.
    If it breaks: leave it out. A search of many trials then needs more memory.
    Tested: TensorFlow 2.21.0, `Context.clear_kernel_cache`.
    """
    from tensorflow.python.eager import context

    if (current := context.context()) is not None:
        current.clear_kernel_cache()


def gradient_name(tensor: Any) -> str:
    """Return the name under which `tf.custom_gradient` registered the gradient of a graph tensor.

    Why, and if it breaks: see `remove_gradient`.
    Tested: TensorFlow 2.21.0, the attribute `_gradient_op_type` of the operation.
    """
    return tensor.op.get_attr("_gradient_op_type").decode()


def registered_gradients() -> set[str]:
    """Return the names of all gradients that are registered with TensorFlow.

    Why, and if it breaks: see `remove_gradient`.
    Tested: TensorFlow 2.21.0, `tensorflow.python.framework.ops.gradient_registry`.
    """
    from tensorflow.python.framework import ops

    return set(ops.gradient_registry.list())


def get_gradient(name: str) -> Callable[..., Any]:
    """Return the registered gradient of that name, `function(op, *upstream)`.

    Why, and if it breaks: see `remove_gradient`.
    Tested: TensorFlow 2.21.0, `tensorflow.python.framework.ops.gradient_registry`.
    """
    from tensorflow.python.framework import ops

    return ops.gradient_registry.lookup(name)


def replace_gradient(name: str, gradient: Callable[..., Any]) -> None:
    """Replace the registered gradient of that name, which `tf.RegisterGradient` refuses.

    Why, and if it breaks: see `remove_gradient`.
    Tested: TensorFlow 2.21.0, `gradient_registry._registry[name]["type"]`.
    """
    from tensorflow.python.framework import ops

    ops.gradient_registry._registry[name]["type"] = gradient


def remove_gradient(name: str) -> None:
    """Remove the gradient of that name from TensorFlow's registry, if it is there.

    Why: `tf.custom_gradient` registers the gradient of every trace for the life of the process, and
    each gradient holds its graph. A search of many trials would run out of memory.
    If it breaks: leave it out, and run long searches in several processes.
    Tested: TensorFlow 2.21.0, `gradient_registry._registry`.
    """
    from tensorflow.python.framework import ops

    ops.gradient_registry._registry.pop(name, None)


def op_definition(name: str) -> Any:
    """Return TensorFlow's definition (`OpDef`) of the operation of that name, or None.

    Why: its `is_stateful` tells which operations of a SavedModel may have effects.
    If it breaks: refuse every operation that is not on a list of known ones.
    Tested: TensorFlow 2.21.0, `tensorflow.python.framework.op_def_registry`.
    """
    from tensorflow.python.framework import op_def_registry

    return op_def_registry.get(name)


def parse_saved_model(data: bytes) -> Any:
    """Parse the bytes of a `saved_model.pb`, without running anything, into a protocol buffer.

    Raises `google.protobuf.message.DecodeError` for damaged data.

    Why: `tf.saved_model.load` runs the initializers of the program.
    If it breaks: generate the class from TensorFlow's `saved_model.proto`.
    Tested: TensorFlow 2.21.0, `tensorflow.core.protobuf.saved_model_pb2`.
    """
    from tensorflow.core.protobuf import saved_model_pb2

    return saved_model_pb2.SavedModel.FromString(data)


# Optuna.


def trial_id(trial: optuna.trial.FrozenTrial) -> int:
    """Return the key of a trial in its storage, which is not its number in the study.

    Why: the methods of `BaseStorage` take it. They are public, but the key of a trial is not.
    If it breaks: `BaseStorage.get_trial_id_from_study_id_trial_number`.
    Tested: Optuna 5.0.0, `FrozenTrial._trial_id`.
    """
    return trial._trial_id


def cached_storage(database: optuna.storages.RDBStorage) -> optuna.storages.BaseStorage:
    """Return a storage that reads the finished trials of a database only once.

    Why: `optuna.create_study` wraps the database in the same way, and a study and its trial store
    should share one cache. The function is marked as internal.
    If it breaks: use the database itself, which is slower with many trials.
    Tested: Optuna 5.0.0, `optuna.storages.get_storage`.
    """
    import optuna

    return optuna.storages.get_storage(database)


# The standard library.


def zip_directory_size(file: BinaryIO) -> int | None:
    """Return the size in bytes of the directory of a zip archive, or None where it is missing.

    Why: `zipfile.ZipFile` reads the whole directory at once. One of millions of members would fill
    the memory before their number is known.
    If it breaks: parse the end-of-central-directory record, and that of ZIP64, with `struct`.
    Tested: Python 3.11, `zipfile._EndRecData`.
    """
    file.seek(0)
    end = zipfile._EndRecData(file)  # pyright: ignore[reportAttributeAccessIssue]  # private
    return end[zipfile._ECD_SIZE] if end else None  # pyright: ignore[reportAttributeAccessIssue]
