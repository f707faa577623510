"""Malicious and damaged model files, each with a pattern of the expected error message.

python -m tests.helpers.hostile FOLDER    loads all of them, and prints the outcomes as JSON
"""

from __future__ import annotations

import copy
import io
import json
import marshal
import os
import pickle
import re
import resource
import struct
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

CONFIG, WEIGHTS, METADATA = "config.json", "model.weights.h5", "metadata.json"
CASES: dict[str, tuple[Callable[[Archive], Any], str]] = {}


def hostile(message: str):
    """Register a function that changes an `Archive`, and may return the path of another file.

    Args:
        message: str, parts of the error message separated by "|", one of which must be in it.
    """

    def register(make):
        CASES[make.__name__] = make, message
        return make

    return register


class Archive:
    """A valid model file in memory, to be changed before it is written."""

    def __init__(self, good: Path, path: Path):
        with zipfile.ZipFile(good) as archive:
            self.members = {name: archive.read(name) for name in archive.namelist()}
        self.config = json.loads(self.members[CONFIG])
        self.path, self.compression = path, zipfile.ZIP_STORED

    def layer(self, class_name: str = "Dense") -> dict[str, Any]:
        """The configuration of the first layer of a class."""
        return next(
            layer for layer in self.config["config"]["layers"] if layer["class_name"] == class_name
        )

    def change_weights(self, change: Callable[[h5py.File], None]) -> None:
        """Apply a function to the HDF5 file of the weights."""
        buffer = io.BytesIO(self.members[WEIGHTS])
        with h5py.File(buffer, "r+") as file:
            change(file)
        self.members[WEIGHTS] = buffer.getvalue()

    def write(self, *extra_members: tuple[str | zipfile.ZipInfo, bytes]) -> None:
        """Write the archive with extra members, unless the file exists."""
        if self.path.exists():
            return
        members = self.members | {CONFIG: self.members.get(CONFIG) and self.config_bytes()}
        with zipfile.ZipFile(self.path, "w", self.compression) as archive:
            for name, data in members.items():
                if data is not None:
                    archive.writestr(name, data)
            for name, data in extra_members:
                archive.writestr(name, data)

    def config_bytes(self) -> bytes:
        return self.config if isinstance(self.config, bytes) else json.dumps(self.config).encode()


def with_extra_member(name: str):
    """An archive with one more member, of that name."""
    return lambda archive: archive.write((name, b"evil"))


# -------------------------------------------------------------------------- members of the archive

for number, name in enumerate(
    (
        "../evil", "assets/../../evil", "/tmp/evil", "assets/..\\evil", "C:\\evil", "evil.py",
        "assets/./evil", "assets//evil", "assets/a\nb", "model.weights.npz", "Config.json",
        "assets", "assets/x:y", "model.weights.h5/evil",
    ),
    1,
):  # fmt: skip
    CASES[f"member_path_outside_{number}"] = with_extra_member(name), "path leads elsewhere"


@hostile("a link or a device")
def symbolic_link_in_assets(archive):
    info = zipfile.ZipInfo("assets/vocabulary.txt")
    info.external_attr = 0o120777 << 16
    archive.write((info, b"/etc/passwd"))


@hostile("two members")
def two_configurations(archive):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile warns of the second one
        archive.write((CONFIG, b"{}"))


@hostile("an encrypted member")
def encrypted_member(archive):
    archive.write()
    data = bytearray(archive.path.read_bytes())
    at = data.rindex(b"PK\x01\x02")
    data[at + 8] |= 1
    archive.path.write_bytes(data)


@hostile("compressed by a method")
def compressed_by_lzma(archive):
    archive.compression = zipfile.ZIP_LZMA


@hostile("expands from")
def decompression_bomb_in_weights(archive):
    archive.compression = zipfile.ZIP_DEFLATED
    archive.members[WEIGHTS] = bytes(2**26)


@hostile("expands from")
def decompression_bomb_in_assets(archive):
    archive.compression = zipfile.ZIP_DEFLATED
    archive.write(("assets/vocabulary.txt", bytes(2**25)))


@hostile("path leads elsewhere")
def nested_decompression_bombs(archive):
    archive.compression = zipfile.ZIP_DEFLATED
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("0", bytes(2**25))
    archive.write(*((f"nested-{number}.zip", inner.getvalue()) for number in range(10)))


@hostile("members")
def twenty_thousand_members(archive):
    archive.write(*((f"assets/{number}", b"") for number in range(20_000)))


@hostile("members")
def two_thousand_members(archive):
    archive.write(*((f"assets/{number}", b"") for number in range(2_000)))


@hostile("damaged|truncated|without")
def wrong_declared_size(archive):
    archive.write()
    data = bytearray(archive.path.read_bytes())
    at = data.rindex(b"PK\x01\x02")
    struct.pack_into("<I", data, at + 24, 2**20)
    archive.path.write_bytes(data)


@hostile("vocabularies of")
def large_vocabulary(archive):
    archive.write(("assets/vocabulary.txt", os.urandom(2**15) * 2**10))


for missing in (CONFIG, WEIGHTS, METADATA):

    def remove_member(archive, name=missing):
        archive.members[name] = None

    CASES[f"missing_{missing.split('.')[0]}"] = remove_member, f"without {missing}"


@hostile("metadata of")
def large_metadata(archive):
    archive.members[METADATA] = b" " * 2**20


# ----------------------------------------------------------------- other files, folders and devices


@hostile("not a zip archive")
def empty_file(archive):
    archive.path.write_bytes(b"")


@hostile("not a zip archive")
def random_bytes(archive):
    archive.path.write_bytes(np.random.default_rng(0).bytes(10_000))


@hostile("folder without saved_model.pb")
def folder_named_as_a_model(archive):
    archive.path.mkdir()
    (archive.path / CONFIG).write_bytes(archive.config_bytes())


@hostile("not a file")
def dangling_link(archive):
    archive.path.symlink_to("/nowhere/model.keras")


@hostile("not a file")
def link_to_a_device(archive):
    archive.path.symlink_to("/dev/zero")


@hostile("not a file")
def named_pipe(archive):
    os.mkfifo(archive.path)


@hostile("older HDF5 format")
def legacy_hdf5_model(archive):
    path = archive.path.with_suffix(".h5")
    path.write_bytes(archive.members[WEIGHTS])
    return path


class Evil:
    """An object whose pickle runs a command."""

    def __reduce__(self):
        return os.system, ("touch pwned",)


@hostile("another format")
def pickle_file(archive):
    path = archive.path.with_suffix(".pkl")
    path.write_bytes(pickle.dumps(Evil()))
    return path


@hostile("not a zip archive")
def pickle_named_as_a_model(archive):
    archive.path.write_bytes(pickle.dumps(Evil()))


@hostile("SHA-256")
def wrong_digest(archive):
    archive.write()


# ------------------------------------------------------------ classes and functions of the config


def bytecode() -> list[str]:
    """A lambda as Keras serializes it, which would create the file `pwned`."""
    import base64

    code = (lambda x: __import__("os").system("touch pwned") or x).__code__
    return [base64.b64encode(marshal.dumps(code)).decode(), None, None]


LAMBDA = {"class_name": "__lambda__", "config": {"value": bytecode()}, "module": "builtins"}


@hostile("a Lambda, which runs|Python lambda")
def lambda_layer_with_bytecode(archive):
    layer = archive.layer()
    layer.update(class_name="Lambda", module="keras.layers", registered_name=None)
    layer["config"] = {"name": layer["name"], "function": LAMBDA, "arguments": {}}


@hostile("Python lambda")
def lambda_as_an_activation(archive):
    archive.layer()["config"]["activation"] = LAMBDA


@hostile("a Lambda, which runs")
def lambda_layer_by_its_private_module(archive):
    archive.layer().update(class_name="Lambda", module="keras.src.layers.core.lambda_layer")


@hostile("a TFSMLayer, which runs")
def saved_model_layer(archive):
    layer = archive.layer()
    layer.update(class_name="TFSMLayer", module="keras.layers", registered_name=None)
    layer["config"] = {"name": layer["name"], "filepath": "/tmp/evil", "call_endpoint": "serve"}


@hostile("a TorchModuleWrapper, which runs")
def torch_module_layer(archive):
    archive.layer().update(class_name="TorchModuleWrapper", module="keras.layers")


def with_object(kind: str, module: Any, name: str):
    """The last layer has another class, or another function as its activation."""

    def make(archive):
        if kind == "class":
            layer = archive.layer()
            layer.update(class_name=name, module=module, registered_name=None, config={})
        else:
            archive.layer()["config"]["activation"] = {
                "class_name": "function", "config": name, "module": module,
                "registered_name": name,
            }  # fmt: skip

    return make


for case, (kind, module, name) in {
    "class_of_subprocess": ("class", "subprocess", "Popen"),
    "class_of_builtins": ("class", "builtins", "exec"),
    "class_of_os": ("class", "os", "_wrap_close"),
    "class_of_tensorflow": ("class", "tensorflow", "Module"),
    "class_without_module": ("class", None, "Evil"),
    "class_of_another_package": ("class", "keras_evil.layers", "Dense"),
    "utility_of_keras_as_a_layer": ("class", "keras.utils", "get_file"),
    "private_class_of_keras": ("class", "keras.src.saving.saving_lib", "H5IOStore"),
    "dataset_as_a_layer": ("class", "keras.utils", "PyDataset"),
    "callback_as_a_layer": ("class", "keras.callbacks", "LambdaCallback"),
    "function_of_os": ("function", "os", "system"),
    "function_of_builtins": ("function", "builtins", "eval"),
    "function_of_subprocess": ("function", "subprocess", "getoutput"),
    "function_that_downloads": ("function", "keras.utils", "get_file"),
    "function_that_disables_safe_mode": (
        "function", "keras.config", "enable_unsafe_deserialization",
    ),
    "function_that_loads": ("function", "keras.saving", "load_model"),
    "function_that_reads_images": ("function", "keras.preprocessing.image", "load_img"),
    "function_that_deserializes": ("function", "builtins", "deserialize"),
    "private_function_of_keras": ("function", "keras.src.utils.python_utils", "func_load"),
}.items():  # fmt: skip
    CASES[case] = with_object(kind, module, name), f"Received: the {kind} '{module}.{name}'"


@hostile("registered as")
def registered_name_of_another_class(archive):
    archive.layer().update(registered_name="keras_seqzoo>SequenceGenerator")


@hostile("without config or module")
def layer_without_a_module(archive):
    del archive.layer()["module"]


@hostile("without config or module|not a model")
def layer_without_a_config(archive):
    del archive.layer()["config"]


@hostile("reads a file")
def vocabulary_from_a_local_file(archive):
    layer = archive.layer()
    layer.update(class_name="StringLookup", module="keras.layers", registered_name=None)
    layer["config"] = {"name": layer["name"], "vocabulary": "/etc/passwd"}


@hostile("reads a file")
def vocabulary_from_the_network(archive):
    layer = archive.layer()
    layer.update(class_name="TextVectorization", module="keras.layers", registered_name=None)
    layer["config"] = {"name": layer["name"], "vocabulary": "http://169.254.169.254/latest"}


def with_array(dtype: str):
    """A layer has an array of that dtype as an argument."""
    config = {"value": [1, 2], "dtype": dtype}
    return lambda archive: archive.layer()["config"].update(
        bias_initializer={"class_name": "__numpy__", "config": config}
    )


CASES["array_of_objects"] = with_array("object"), "an array of dtype 'object'"
CASES["array_of_float128"] = with_array("float128"), "an array of dtype 'float128'"


@hostile("an array of dtype '<U100000000'")
def array_of_wide_strings(archive):
    config = {"value": ["a"] * 200, "dtype": "<U100000000"}
    archive.layer()["inbound_nodes"][0]["kwargs"]["more"] = {
        "class_name": "__numpy__", "config": config,
    }  # fmt: skip


@hostile("called on constants alone")
def layer_called_on_constants(archive):
    constant = {"value": [[[0.0] * 1000]], "dtype": "float32"}
    args = [{"class_name": "__numpy__", "config": constant}]
    archive.config["config"]["layers"].append({
        "module": "keras.layers", "class_name": "UpSampling1D", "registered_name": None,
        "name": "wide", "config": {"name": "wide", "size": 2**20},
        "inbound_nodes": [{"args": args, "kwargs": {}}],
    })  # fmt: skip


@hostile("__typespec__")
def type_spec_of_tensorflow(archive):
    archive.layer()["config"]["dtype"] = {
        "class_name": "__typespec__", "spec_name": "TensorSpec", "config": [[], "float32", None],
        "module": "tensorflow", "registered_name": None,
    }  # fmt: skip


@hostile("the class 'os.system'|the class")
def optimizer_of_another_module(archive):
    archive.config["compile_config"] = {
        "optimizer": {"class_name": "system", "config": {}, "module": "os"}
    }


# ------------------------------------------------------------------------------------------- sizes


def with_units(units: int):
    """The last layer has another number of units."""
    return lambda archive: archive.layer()["config"].update(units=units)


CASES["a_billion_units"] = with_units(10**9), "units=1000000000"
CASES["ten_million_units"] = with_units(10**7), "weights for layers"
CASES["negative_units"] = with_units(-(10**12)), "units=-1000000000000"
CASES["more_units_than_weights"] = with_units(50), "cannot be loaded"


@hostile("batch_shape=|shape=")
def input_with_a_billion_features(archive):
    archive.layer("InputLayer")["config"]["batch_shape"] = [None, None, 10**9]


@hostile("shape=")
def input_shape_with_a_large_product(archive):
    archive.layer("InputLayer")["config"]["batch_shape"] = [None, 10**5, 10**5]


@hostile("weights for layers|cannot be built")
def large_embedding(archive):
    layer = archive.layer()
    layer.update(class_name="Embedding", module="keras.layers", registered_name=None)
    layer["config"] = {"name": layer["name"], "input_dim": 10**7, "output_dim": 10**7}
    layer["build_config"] = None


@hostile("weights for layers")
def many_wide_layers(archive):
    wide = {"module": "keras.layers", "class_name": "Dense", "registered_name": None}
    layers = [wide | {"config": {"units": 60_000, "name": f"d{number}"}} for number in range(20)]
    start = {"module": "keras.layers", "class_name": "InputLayer", "registered_name": None}
    start["config"] = {"batch_shape": [None, 60_000], "name": "start"}
    archive.config = {
        "module": "keras", "class_name": "Sequential", "registered_name": None,
        "config": {"name": "wide", "layers": [start, *layers]},
    }  # fmt: skip


def sequential(archive, *layers: tuple[str, dict[str, Any]], shape: list) -> None:
    """Replace the model by a sequential one of layers `(class_name, config)`."""
    layers = (("InputLayer", {"batch_shape": [None, *shape]}), *layers)
    archive.config = {
        "module": "keras", "class_name": "Sequential", "registered_name": None,
        "config": {"name": "model", "layers": [
            {"module": "keras.layers", "class_name": class_name, "registered_name": None,
             "config": {"name": f"layer_{number}"} | config}
            for number, (class_name, config) in enumerate(layers)
        ]},
    }  # fmt: skip


@hostile("more than 2,000 layers")
def five_thousand_layers(archive):
    sequential(archive, *[("Activation", {"activation": "tanh"})] * 5_000, shape=[3])


@hostile("unrolled")
def long_unrolled_loop(archive):
    sequential(archive, ("SimpleRNN", {"units": 1, "unroll": True}), shape=[100_000, 1])
    archive.change_weights(lambda file: file.clear())
    archive.change_weights(lambda file: file.update(a=np.zeros(3, "float32")))


@hostile("unrolled")
def unrolled_loop_after_upsampling(archive):
    sequential(
        archive, ("UpSampling1D", {"size": 1000}), ("UpSampling1D", {"size": 1000}),
        ("SimpleRNN", {"units": 1, "unroll": True}), shape=[10, 1],
    )  # fmt: skip


@hostile("filters of")
def large_spectrogram_filters(archive):
    spectrogram = {"num_mel_bins": 2**20, "fft_length": 2**20, "sequence_stride": 1}
    sequential(archive, ("MelSpectrogram", spectrogram), shape=[2**21])


@hostile("nested more than|not JSON")
def deeply_nested_configuration(archive):
    archive.config = b'{"module": "keras", "class_name": "Sequential", "config": ' + (
        b"[" * 100_000 + b"]" * 100_000 + b"}"
    )


@hostile("nested more than")
def deeply_nested_models(archive):
    inner = copy.deepcopy(archive.config)
    for _ in range(150):
        inner = {"module": "keras", "class_name": "Sequential", "registered_name": None,
                 "config": {"name": "outer", "layers": [inner]}}  # fmt: skip
    archive.config = inner


@hostile("values")
def configuration_with_many_values(archive):
    archive.config = b'{"class_name": "a", "module": "b", "config": [' + b"[]," * 2**22 + b"0]}"


@hostile("with a configuration of")
def large_configuration(archive):
    archive.config = b" " * 2**25


@hostile("not JSON")
def truncated_configuration(archive):
    archive.config = archive.config_bytes()[:-20]


@hostile("not JSON")
def number_with_a_million_digits(archive):
    archive.config = b'{"module": "a", "class_name": "b", "config": 1' + b"0" * 10**6 + b"}"


@hostile("not a model")
def configuration_that_is_a_list(archive):
    archive.config = b"[1, 2]"


@hostile("not a model")
def layer_instead_of_a_model(archive):
    archive.config = archive.layer() | {"build_config": None}
    del archive.config["inbound_nodes"]


# ------------------------------------------------------------------------------------------ weights


def first_dataset(file: h5py.File) -> h5py.Dataset:
    """The first dataset that is not a scalar."""
    datasets: list[h5py.Dataset] = []
    file.visititems(
        lambda _, item: (
            datasets.append(item) if isinstance(item, h5py.Dataset) and item.ndim else None
        )
    )
    return datasets[0]


def replace_dataset(
    file: h5py.File, create: Callable[[h5py.Group, str, h5py.Dataset], None]
) -> None:
    """Delete the first dataset, and call `create(group, name, dataset)` in its place."""
    dataset = first_dataset(file)
    group, name = dataset.parent, dataset.name.rsplit("/", 1)[1]
    del group[name]
    create(group, name, dataset)


def weights(message: str):
    """Register a function that changes the weights; it receives the path of another HDF5 file."""

    def register(change):
        def make(archive):
            other = archive.path.with_suffix(".other")
            with h5py.File(other, "w") as file:
                file["vars"] = np.zeros((2, 3), "float32")
            archive.change_weights(lambda file: change(file, str(other)))

        CASES[change.__name__] = make, message
        return change

    return register


@weights("are a link (ExternalLink)")
def external_link(file, other):
    replace_dataset(
        file, lambda group, name, _: group.update({name: h5py.ExternalLink(other, "vars")})
    )


@weights("are a link (ExternalLink)")
def external_link_to_a_group(file, other):
    group = first_dataset(file).parent
    path, name = group.parent, group.name.rsplit("/", 1)[1]
    del path[name]
    path[name] = h5py.ExternalLink(other, "/")


@weights("are a link (SoftLink)")
def soft_link(file, other):
    replace_dataset(file, lambda group, name, _: group.update({name: h5py.SoftLink("/elsewhere")}))


@weights("are stored in another file")
def external_storage(file, other):
    replace_dataset(
        file,
        lambda group, name, old: group.create_dataset(
            name, old.shape, "float32", external=[(other, 0, h5py.h5f.UNLIMITED)]
        ),
    )


@weights("are stored in another file")
def virtual_dataset(file, other):
    def create(group, name, old):
        layout = h5py.VirtualLayout(old.shape, "float32")
        layout[...] = h5py.VirtualSource(other, "vars", old.shape)
        group.create_virtual_dataset(name, layout)

    replace_dataset(file, create)


@weights("expand from")
def dataset_without_storage(file, other):
    replace_dataset(
        file,
        lambda group, name, _: group.create_dataset(
            name, (10**6, 10**5), "float32", chunks=(100, 100), compression="gzip"
        ),
    )


@weights("expand from|take more")
def compressed_zeros(file, other):
    file.create_dataset("zeros", data=np.zeros(2**25, "uint8"), chunks=(2**20,), compression="gzip")


@weights("are not numbers")
def strings_as_weights(file, other):
    replace_dataset(
        file,
        lambda group, name, old: group.create_dataset(
            name, data=np.full(old.shape, "a", object), dtype=h5py.string_dtype()
        ),
    )


@weights("two paths")
def group_inside_itself(file, other):
    group = first_dataset(file).parent
    group["again"] = group.parent


@weights("contain NaN")
def nan_weights(file, other):
    first_dataset(file)[...] = np.nan


@weights("cannot be loaded|weights for layers")
def weights_of_another_shape(file, other):
    replace_dataset(
        file, lambda group, name, old: group.update({name: np.zeros((7, 7), "float32")})
    )


@weights("cannot be loaded")
def one_weight_missing(file, other):
    replace_dataset(file, lambda *_: None)


@weights("cannot be loaded|weights for layers")
def all_weights_missing(file, other):
    file.clear()


@weights("weights for layers")
def two_million_extra_weights(file, other):
    file["extra"] = np.random.default_rng(0).random(2**21, np.float32)


CASES["weights_that_are_not_hdf5"] = (
    lambda archive: archive.members.update({WEIGHTS: b"evil" * 100}), "weights are damaged",
)  # fmt: skip
CASES["truncated_weights"] = (
    lambda archive: archive.members.update({WEIGHTS: archive.members[WEIGHTS][:-1000]}),
    "weights are damaged",
)


# ------------------------------------------------------------------------------------- SavedModels


def program(message: str):
    """Register a SavedModel of a function of one number."""

    def register(function):
        def make(archive):
            import tensorflow as tf

            module, spec = tf.Module(), tf.TensorSpec((), tf.float32)
            module.serve = tf.function(function, input_signature=[spec])
            tf.saved_model.save(module, str(archive.path))

        CASES[function.__name__] = make, message
        return function

    return register


@program("operation ReadFile")
def program_that_reads_a_file(x):
    import tensorflow as tf

    return tf.io.read_file("/etc/passwd"), x


@program("operation WriteFile")
def program_that_writes_a_file_in_a_branch(x):
    import tensorflow as tf

    @tf.function
    def inner(x):
        tf.io.write_file("pwned", "evil")
        return x

    return tf.cond(x > 0, lambda: inner(x), lambda: x)


@program("operation EagerPyFunc|operation PyFunc")
def program_that_calls_python(x):
    import tensorflow as tf

    return tf.numpy_function(lambda x: x, [x], tf.float32)


@program("Dataset")
def program_that_reads_a_dataset(x):
    import tensorflow as tf

    return tf.data.TextLineDataset("/etc/passwd").reduce(0, lambda n, _: n + 1), x


@program("operation SaveV2")
def program_that_saves_a_tensor(x):
    import tensorflow as tf

    tf.raw_ops.SaveV2(prefix="pwned", tensor_names=["a"], shape_and_slices=[""], tensors=[x])
    return x


@program("operation PrintV2")
def program_that_prints_into_a_file(x):
    import tensorflow as tf

    tf.print(x, output_stream="file://pwned")
    return x


@program("link or a device")
def program_with_a_link(x):
    return x


@program("damaged|without objects")
def truncated_program(x):
    return x


def _damage_programs(folder: Path) -> None:
    (folder / "program_with_a_link.keras" / "assets" / "evil").symlink_to("/etc/passwd")
    file = folder / "truncated_program.keras" / "saved_model.pb"
    file.write_bytes(file.read_bytes()[:-100])


# ------------------------------------------------------------------------------------- all files


def write(folder: Path, flips: int) -> dict[str, dict[str, Any]]:
    """Write every file, all truncations by whole percents, and `flips` files with flipped bits.

    Returns:
        A dict of cases by name: the path, the pattern of the error message, and whether the file
        may load with the saved weights (`or_same`) or with any weights (`or_loads`).
    """
    import keras_seqzoo as zoo

    good = folder / "good.keras"
    model = zoo.get("simple_rnn_identity", features=2, units=3, recurrent_regularizer="l2")
    model.compile("adam", "mse")
    model.save(good)
    cases = {}
    for name, (make, message) in CASES.items():
        archive = Archive(good, folder / f"{name}.keras")
        path = make(archive) or archive.path
        if path == archive.path and not os.path.lexists(path):
            archive.write()
        cases[name] = {"path": str(path), "message": message}
    cases["wrong_digest"]["sha256"] = "0" * 64
    _damage_programs(folder)
    content, rng = good.read_bytes(), np.random.default_rng(0)
    for percent in range(100):
        path = folder / f"truncated-{percent}.keras"
        path.write_bytes(content[: len(content) * percent // 100])
        cases[path.stem] = {"path": str(path), "message": "truncated|damaged"}
    for number in range(flips):
        flipped = bytearray(content)
        flipped[rng.integers(len(content))] ^= 1 << rng.integers(8)
        path = folder / f"flipped-{number}.keras"
        path.write_bytes(flipped)
        # Dates and attributes of members have no checksum. Such a file loads as it was saved.
        cases[path.stem] = {"path": str(path), "message": "", "or_same": True}
    for number in range(flips):
        archive = Archive(good, folder / f"flipped-weights-{number}.keras")
        changed = bytearray(archive.members[WEIGHTS])
        for position in rng.integers(0, len(changed), 1 + number % 8):
            changed[position] ^= 1 << rng.integers(8)
        archive.members[WEIGHTS] = bytes(changed)
        archive.write()
        # The checksum is right, so that the file may load with other weights, but not crash.
        cases[archive.path.stem] = {"path": str(archive.path), "message": "", "or_loads": True}
    (folder / "cases.json").write_text(json.dumps(cases))
    return cases


def main(folder: Path) -> None:
    """Load every file in this process, and print the outcomes and the peak memory as JSON."""
    import keras_seqzoo as zoo
    from keras_seqzoo.errors import ArtifactError

    cases = json.loads((folder / "cases.json").read_text())
    expected = zoo.load(folder / "good.keras").get_weights()
    before = peak_kilobytes()
    outcomes = {}
    for name, case in cases.items():
        try:
            model = zoo.load(case["path"], sha256=case.get("sha256"))
        except ArtifactError as error:
            outcomes[name] = str(error)
        except BaseException as error:
            outcomes[name] = f"ESCAPED {type(error).__name__}: {error}"
        else:
            weights = getattr(model, "get_weights", list)()
            same = len(weights) == len(expected) and all(map(np.array_equal, weights, expected))
            outcomes[name] = "SAME" if same else "LOADED"
    print(json.dumps({"outcomes": outcomes, "kilobytes": [before, peak_kilobytes()]}))


def peak_kilobytes() -> int:
    """The peak resident memory of this process."""
    status = Path("/proc/self/status")
    if status.exists():  # `ru_maxrss` includes the peak of the parent process
        return int(re.search(r"VmHWM:\s+(\d+)", status.read_text())[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main(Path(sys.argv[1]))
