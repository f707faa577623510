"""Model files that must not load: each made here, by name, with the words that its refusal says.

python tests/hostile.py FOLDER    loads all of them, in this process, and prints what happened
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


def hostile(words: str):
    """Registers a case; what it returns besides None is its path."""

    def register(make):
        CASES[make.__name__] = make, words
        return make

    return register


class Archive:
    """A model file, whole, to be changed before it is written."""

    def __init__(self, good: Path, path: Path):
        with zipfile.ZipFile(good) as archive:
            self.members = {name: archive.read(name) for name in archive.namelist()}
        self.config = json.loads(self.members[CONFIG])
        self.good, self.path, self.packed = good, path, zipfile.ZIP_STORED

    def layer(self, kind: str = "Dense") -> dict[str, Any]:
        """The configuration of the first layer of a kind."""
        return next(one for one in self.config["config"]["layers"] if one["class_name"] == kind)

    def hdf5(self, change: Callable[[h5py.File], None]) -> None:
        """Changes the weights."""
        held = io.BytesIO(self.members[WEIGHTS])
        with h5py.File(held, "r+") as file:
            change(file)
        self.members[WEIGHTS] = held.getvalue()

    def write(self, *more: tuple[str | zipfile.ZipInfo, bytes]) -> None:
        """Writes what is not yet there, and further members."""
        if self.path.exists():
            return
        members = self.members | {CONFIG: self.members.get(CONFIG) and self.text()}
        with zipfile.ZipFile(self.path, "w", self.packed) as archive:
            for name, data in members.items():
                if data is not None:
                    archive.writestr(name, data)
            for name, data in more:
                archive.writestr(name, data)

    def text(self) -> bytes:
        return self.config if isinstance(self.config, bytes) else json.dumps(self.config).encode()


def member(name: str):
    """A file with one member too many, of that name."""
    return lambda archive: archive.write((name, b"evil"))


# --------------------------------------------------------------------------- members of the archive

for number, name in enumerate(
    (
        "../evil", "assets/../../evil", "/tmp/evil", "assets/..\\evil", "C:\\evil", "evil.py",
        "assets/./evil", "assets//evil", "assets/a\nb", "model.weights.npz", "Config.json",
        "assets", "assets/x:y", "model.weights.h5/evil",
    ),
    1,
):  # fmt: skip
    CASES[f"name_that_leads_elsewhere_{number}"] = member(name), "name leads elsewhere"


@hostile("a link or a device")
def symbolic_link_in_assets(archive):
    info = zipfile.ZipInfo("assets/vocabulary.txt")
    info.external_attr = 0o120777 << 16
    archive.write((info, b"/etc/passwd"))


@hostile("two members")
def configuration_twice(archive):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Python's, that it is there twice
        archive.write((CONFIG, b"{}"))


@hostile("an encrypted member")
def encrypted(archive):
    archive.write()
    data = bytearray(archive.path.read_bytes())
    at = data.rindex(b"PK\x01\x02")
    data[at + 8] |= 1
    archive.path.write_bytes(data)


@hostile("packed in a way")
def packed_by_lzma(archive):
    archive.packed = zipfile.ZIP_LZMA


@hostile("grows from")
def bomb_in_the_weights(archive):
    archive.packed = zipfile.ZIP_DEFLATED
    archive.members[WEIGHTS] = bytes(2**26)


@hostile("grows from")
def bomb_in_assets(archive):
    archive.packed = zipfile.ZIP_DEFLATED
    archive.write(("assets/vocabulary.txt", bytes(2**25)))


@hostile("name leads elsewhere")
def bomb_in_a_bomb(archive):
    archive.packed = zipfile.ZIP_DEFLATED
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("0", bytes(2**25))
    archive.write(*((f"nested-{number}.zip", inner.getvalue()) for number in range(10)))


@hostile("members")
def members_by_the_thousand(archive):
    archive.write(*((f"assets/{number}", b"") for number in range(20_000)))


@hostile("members")
def some_members_too_many(archive):
    archive.write(*((f"assets/{number}", b"") for number in range(2_000)))


@hostile("damaged|cut short|without")
def declares_another_size(archive):
    archive.write()
    data = bytearray(archive.path.read_bytes())
    at = data.rindex(b"PK\x01\x02")
    struct.pack_into("<I", data, at + 24, 2**20)
    archive.path.write_bytes(data)


@hostile("whose vocabularies hold")
def vocabulary_of_many_bytes(archive):
    archive.write(("assets/vocabulary.txt", os.urandom(2**15) * 2**10))


for missing in (CONFIG, WEIGHTS, METADATA):

    def without(archive, name=missing):
        archive.members[name] = None

    CASES[f"without_{missing.split('.')[0]}"] = without, f"without {missing}"


@hostile("whose metadata hold")
def metadata_of_many_bytes(archive):
    archive.members[METADATA] = b" " * 2**20


# ---------------------------------------------------------------------------- things of other kinds


@hostile("no zip archive")
def empty_file(archive):
    archive.path.write_bytes(b"")


@hostile("no zip archive")
def random_bytes(archive):
    archive.path.write_bytes(np.random.default_rng(0).bytes(10_000))


@hostile("folder without saved_model.pb")
def folder_that_is_named_as_a_model(archive):
    archive.path.mkdir()
    (archive.path / CONFIG).write_bytes(archive.text())


@hostile("no file")
def link_to_nothing(archive):
    archive.path.symlink_to("/nowhere/model.keras")


@hostile("no file")
def link_to_a_device(archive):
    archive.path.symlink_to("/dev/zero")


@hostile("no file")
def named_pipe(archive):
    os.mkfifo(archive.path)


@hostile("older format")
def older_format(archive):
    path = archive.path.with_suffix(".h5")
    path.write_bytes(archive.members[WEIGHTS])
    return path


class Evil:
    """What runs when a pickle is read."""

    def __reduce__(self):
        return os.system, ("touch pwned",)


@hostile("another kind")
def pickled(archive):
    path = archive.path.with_suffix(".pkl")
    path.write_bytes(pickle.dumps(Evil()))
    return path


@hostile("no zip archive")
def pickle_that_is_named_as_a_model(archive):
    archive.path.write_bytes(pickle.dumps(Evil()))


@hostile("SHA-256")
def other_bytes_than_were_promised(archive):
    archive.write()


# ---------------------------------------------------------------------------- what a model may name


def bytecode() -> list[str]:
    """A lambda as Keras wrote them: what it would run leaves a file behind."""
    import base64

    code = (lambda x: __import__("os").system("touch pwned") or x).__code__
    return [base64.b64encode(marshal.dumps(code)).decode(), None, None]


LAMBDA = {"class_name": "__lambda__", "config": {"value": bytecode()}, "module": "builtins"}


@hostile("a Lambda, which runs|Python lambda")
def lambda_of_bytecode(archive):
    layer = archive.layer()
    layer.update(class_name="Lambda", module="keras.layers", registered_name=None)
    layer["config"] = {"name": layer["name"], "function": LAMBDA, "arguments": {}}


@hostile("Python lambda")
def lambda_as_an_activation(archive):
    archive.layer()["config"]["activation"] = LAMBDA


@hostile("a Lambda, which runs")
def lambda_by_its_inner_module(archive):
    archive.layer().update(class_name="Lambda", module="keras.src.layers.core.lambda_layer")


@hostile("a TFSMLayer, which runs")
def foreign_saved_model(archive):
    layer = archive.layer()
    layer.update(class_name="TFSMLayer", module="keras.layers", registered_name=None)
    layer["config"] = {"name": layer["name"], "filepath": "/tmp/evil", "call_endpoint": "serve"}


@hostile("a TorchModuleWrapper, which runs")
def pickled_torch_module(archive):
    archive.layer().update(class_name="TorchModuleWrapper", module="keras.layers")


def names(kind: str, module: Any, name: str):
    """The last layer is another class, or has another function for its activation."""

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
    "class_of_nowhere": ("class", None, "Evil"),
    "class_of_another_package": ("class", "keras_evil.layers", "Dense"),
    "utility_of_keras_as_a_class": ("class", "keras.utils", "get_file"),
    "inner_class_of_keras": ("class", "keras.src.saving.saving_lib", "H5IOStore"),
    "sequence_of_files": ("class", "keras.utils", "PyDataset"),
    "callback_as_a_layer": ("class", "keras.callbacks", "LambdaCallback"),
    "function_of_os": ("function", "os", "system"),
    "function_of_builtins": ("function", "builtins", "eval"),
    "function_of_subprocess": ("function", "subprocess", "getoutput"),
    "function_that_downloads": ("function", "keras.utils", "get_file"),
    "function_that_switches_safety_off": (
        "function", "keras.config", "enable_unsafe_deserialization",
    ),
    "function_that_loads": ("function", "keras.saving", "load_model"),
    "function_that_reads_images": ("function", "keras.preprocessing.image", "load_img"),
    "function_that_deserializes": ("function", "builtins", "deserialize"),
    "function_of_an_inner_module": ("function", "keras.src.utils.python_utils", "func_load"),
}.items():  # fmt: skip
    CASES[case] = names(kind, module, name), f"Received: the {kind} '{module}.{name}'"


@hostile("goes by the name of")
def registered_name_of_another_class(archive):
    archive.layer().update(registered_name="keras_seqzoo>SequenceGenerator")


@hostile("without config or module")
def object_of_the_format_before(archive):
    del archive.layer()["module"]


@hostile("without config or module|no model")
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


def array_of(kind: str):
    """An array of such values among a layer's arguments."""
    config = {"value": [1, 2], "dtype": kind}
    return lambda archive: archive.layer()["config"].update(
        bias_initializer={"class_name": "__numpy__", "config": config}
    )


CASES["array_of_objects"] = array_of("object"), "an array of 'object'"
CASES["array_of_a_type_of_some_machines"] = array_of("float128"), "an array of 'float128'"


@hostile("an array of '<U100000000'")
def array_of_wide_strings(archive):
    config = {"value": ["a"] * 200, "dtype": "<U100000000"}
    archive.layer()["inbound_nodes"][0]["kwargs"]["more"] = {
        "class_name": "__numpy__", "config": config,
    }  # fmt: skip


@hostile("a layer that is called on no tensor")
def layer_that_runs_while_it_is_loaded(archive):
    constant = {"value": [[[0.0] * 1000]], "dtype": "float32"}
    args = [{"class_name": "__numpy__", "config": constant}]
    archive.config["config"]["layers"].append({
        "module": "keras.layers", "class_name": "UpSampling1D", "registered_name": None,
        "name": "wide", "config": {"name": "wide", "size": 2**20},
        "inbound_nodes": [{"args": args, "kwargs": {}}],
    })  # fmt: skip


@hostile("__typespec__")
def type_of_tensorflow(archive):
    archive.layer()["config"]["dtype"] = {
        "class_name": "__typespec__", "spec_name": "TensorSpec", "config": [[], "float32", None],
        "module": "tensorflow", "registered_name": None,
    }  # fmt: skip


@hostile("the class 'os.system'|the class")
def optimizer_of_another_module(archive):
    archive.config["compile_config"] = {
        "optimizer": {"class_name": "system", "config": {}, "module": "os"}
    }


# ---------------------------------------------------------------------------------------- too large


def sized(units: int):
    """A last layer of so many units."""
    return lambda archive: archive.layer()["config"].update(units=units)


CASES["units_by_the_billion"] = sized(10**9), "units=1000000000"
CASES["units_by_the_million"] = sized(10**7), "weights that holds"
CASES["units_below_zero"] = sized(-(10**12)), "units=-1000000000000"
CASES["a_few_units_too_many"] = sized(50), "cannot be loaded"


@hostile("batch_shape=|shape=")
def input_of_a_billion_features(archive):
    archive.layer("InputLayer")["config"]["batch_shape"] = [None, None, 10**9]


@hostile("shape=")
def input_shape_whose_product_is_large(archive):
    archive.layer("InputLayer")["config"]["batch_shape"] = [None, 10**5, 10**5]


@hostile("holds|cannot be built")
def embedding_of_many_tokens(archive):
    layer = archive.layer()
    layer.update(class_name="Embedding", module="keras.layers", registered_name=None)
    layer["config"] = {"name": layer["name"], "input_dim": 10**7, "output_dim": 10**7}
    layer["build_config"] = None


@hostile("weights that holds")
def wide_layers_one_after_another(archive):
    wide = {"module": "keras.layers", "class_name": "Dense", "registered_name": None}
    layers = [wide | {"config": {"units": 60_000, "name": f"d{one}"}} for one in range(20)]
    start = {"module": "keras.layers", "class_name": "InputLayer", "registered_name": None}
    start["config"] = {"batch_shape": [None, 60_000], "name": "start"}
    archive.config = {
        "module": "keras", "class_name": "Sequential", "registered_name": None,
        "config": {"name": "wide", "layers": [start, *layers]},
    }  # fmt: skip


def sequential(archive, *layers: dict[str, Any], shape: list) -> None:
    """Makes the model one of these layers, `(name of the class, config)`."""
    given = [("InputLayer", {"batch_shape": [None, *shape]}), *layers]
    archive.config = {
        "module": "keras", "class_name": "Sequential", "registered_name": None,
        "config": {"name": "model", "layers": [
            {"module": "keras.layers", "class_name": kind, "registered_name": None,
             "config": {"name": f"layer_{number}"} | config}
            for number, (kind, config) in enumerate(given)
        ]},
    }  # fmt: skip


@hostile("more than 2,000 layers")
def layers_by_the_thousand(archive):
    sequential(archive, *[("Activation", {"activation": "tanh"})] * 5_000, shape=[3])


@hostile("written out")
def loop_written_out(archive):
    sequential(archive, ("SimpleRNN", {"units": 1, "unroll": True}), shape=[100_000, 1])
    archive.hdf5(lambda file: file.clear())
    archive.hdf5(lambda file: file.update(a=np.zeros(3, "float32")))


@hostile("written out")
def loop_written_out_after_repetition(archive):
    sequential(
        archive, ("UpSampling1D", {"size": 1000}), ("UpSampling1D", {"size": 1000}),
        ("SimpleRNN", {"units": 1, "unroll": True}), shape=[10, 1],
    )  # fmt: skip


@hostile("filters of")
def filters_by_the_million(archive):
    spectrogram = {"num_mel_bins": 2**20, "fft_length": 2**20, "sequence_stride": 1}
    sequential(archive, ("MelSpectrogram", spectrogram), shape=[2**21])


@hostile("nested more than|no JSON")
def configuration_nested_deep(archive):
    archive.config = b'{"module": "keras", "class_name": "Sequential", "config": ' + (
        b"[" * 100_000 + b"]" * 100_000 + b"}"
    )


@hostile("nested more than")
def models_nested_deep(archive):
    inner = copy.deepcopy(archive.config)
    for _ in range(150):
        inner = {"module": "keras", "class_name": "Sequential", "registered_name": None,
                 "config": {"name": "outer", "layers": [inner]}}  # fmt: skip
    archive.config = inner


@hostile("values")
def configuration_of_many_values(archive):
    archive.config = b'{"class_name": "a", "module": "b", "config": [' + b"[]," * 2**22 + b"0]}"


@hostile("configuration hold")
def configuration_of_many_bytes(archive):
    archive.config = b" " * 2**25


@hostile("no JSON")
def configuration_cut_short(archive):
    archive.config = archive.text()[:-20]


@hostile("no JSON")
def configuration_of_a_number_of_many_digits(archive):
    archive.config = b'{"module": "a", "class_name": "b", "config": 1' + b"0" * 10**6 + b"}"


@hostile("no model")
def configuration_of_a_list(archive):
    archive.config = b"[1, 2]"


@hostile("no model")
def layer_instead_of_a_model(archive):
    archive.config = archive.layer() | {"build_config": None}
    del archive.config["inbound_nodes"]


# ------------------------------------------------------------------------------------------ weights


def first(file: h5py.File) -> h5py.Dataset:
    """The first dataset of a file."""
    found: list[h5py.Dataset] = []
    file.visititems(
        lambda _, one: found.append(one) if isinstance(one, h5py.Dataset) and one.ndim else None
    )
    return found[0]


def replaced(file: h5py.File, put: Callable[[h5py.Group, str, h5py.Dataset], None]) -> None:
    """Puts something else in the place of a dataset."""
    dataset = first(file)
    group, name = dataset.parent, dataset.name.rsplit("/", 1)[1]
    del group[name]
    put(group, name, dataset)


def weights(words: str):
    """Registers a case that changes the weights alone."""

    def register(put):
        def make(archive):
            secret = archive.path.with_suffix(".secret")
            with h5py.File(secret, "w") as file:
                file["vars"] = np.zeros((2, 3), "float32")
            archive.hdf5(lambda file: put(file, str(secret)))

        CASES[put.__name__] = make, words
        return put

    return register


@weights("are a link (ExternalLink)")
def external_link(file, secret):
    replaced(file, lambda group, name, _: group.update({name: h5py.ExternalLink(secret, "vars")}))


@weights("are a link (ExternalLink)")
def external_link_in_the_place_of_a_group(file, secret):
    group = first(file).parent
    path, name = group.parent, group.name.rsplit("/", 1)[1]
    del path[name]
    path[name] = h5py.ExternalLink(secret, "/")


@weights("are a link (SoftLink)")
def soft_link(file, secret):
    replaced(file, lambda group, name, _: group.update({name: h5py.SoftLink("/elsewhere")}))


@weights("lie in another file")
def external_storage(file, secret):
    replaced(
        file,
        lambda group, name, old: group.create_dataset(
            name, old.shape, "float32", external=[(secret, 0, h5py.h5f.UNLIMITED)]
        ),
    )


@weights("lie in another file")
def virtual_dataset(file, secret):
    def put(group, name, old):
        layout = h5py.VirtualLayout(old.shape, "float32")
        layout[...] = h5py.VirtualSource(secret, "vars", old.shape)
        group.create_virtual_dataset(name, layout)

    replaced(file, put)


@weights("grow from")
def declared_but_not_stored(file, secret):
    replaced(
        file,
        lambda group, name, _: group.create_dataset(
            name, (10**6, 10**5), "float32", chunks=(100, 100), compression="gzip"
        ),
    )


@weights("grow from|take more")
def packed_zeros(file, secret):
    file.create_dataset("zeros", data=np.zeros(2**25, "uint8"), chunks=(2**20,), compression="gzip")


@weights("are no numbers")
def strings_as_weights(file, secret):
    replaced(
        file,
        lambda group, name, old: group.create_dataset(
            name, data=np.full(old.shape, "a", object), dtype=h5py.string_dtype()
        ),
    )


@weights("in two places")
def group_within_itself(file, secret):
    group = first(file).parent
    group["again"] = group.parent


@weights("are not all numbers")
def weights_that_are_no_numbers(file, secret):
    first(file)[...] = np.nan


@weights("cannot be loaded|weights that holds")
def weights_of_another_shape(file, secret):
    replaced(file, lambda group, name, old: group.update({name: np.zeros((7, 7), "float32")}))


@weights("cannot be loaded")
def weights_missing(file, secret):
    replaced(file, lambda *_: None)


@weights("cannot be loaded|weights that holds")
def weights_all_missing(file, secret):
    file.clear()


@weights("weights that holds")
def weights_by_the_million_too_many(file, secret):
    file["more"] = np.random.default_rng(0).random(2**21, np.float32)


CASES["weights_that_are_no_file"] = (
    lambda archive: archive.members.update({WEIGHTS: b"evil" * 100}), "weights are damaged",
)  # fmt: skip
CASES["weights_cut_short"] = (
    lambda archive: archive.members.update({WEIGHTS: archive.members[WEIGHTS][:-1000]}),
    "weights are damaged",
)


# ----------------------------------------------------------------------------------------- programs


def program(words: str):
    """Registers a case that is a SavedModel of a function of one number."""

    def register(function):
        def make(archive):
            import tensorflow as tf

            module, given = tf.Module(), tf.TensorSpec((), tf.float32)
            module.serve = tf.function(function, input_signature=[given])
            tf.saved_model.save(module, str(archive.path))

        CASES[function.__name__] = make, words
        return function

    return register


@program("one that runs ReadFile")
def program_that_reads(x):
    import tensorflow as tf

    return tf.io.read_file("/etc/passwd"), x


@program("one that runs WriteFile")
def program_that_writes_in_a_branch(x):
    import tensorflow as tf

    @tf.function
    def inner(x):
        tf.io.write_file("pwned", "evil")
        return x

    return tf.cond(x > 0, lambda: inner(x), lambda: x)


@program("one that runs EagerPyFunc|one that runs PyFunc")
def program_that_calls_python(x):
    import tensorflow as tf

    return tf.numpy_function(lambda x: x, [x], tf.float32)


@program("Dataset")
def program_that_reads_lines(x):
    import tensorflow as tf

    return tf.data.TextLineDataset("/etc/passwd").reduce(0, lambda n, _: n + 1), x


@program("one that runs SaveV2")
def program_that_saves(x):
    import tensorflow as tf

    tf.raw_ops.SaveV2(prefix="pwned", tensor_names=["a"], shape_and_slices=[""], tensors=[x])
    return x


@program("one that runs PrintV2")
def program_that_prints_into_a_file(x):
    import tensorflow as tf

    tf.print(x, output_stream="file://pwned")
    return x


@program("link or a device")
def program_with_a_link(x):
    return x


@program("damaged|without objects")
def program_cut_short(x):
    return x


def _spoil_programs(folder: Path) -> None:
    (folder / "program_with_a_link.keras" / "assets" / "evil").symlink_to("/etc/passwd")
    file = folder / "program_cut_short.keras" / "saved_model.pb"
    file.write_bytes(file.read_bytes()[:-100])


# ---------------------------------------------------------------------------------------- all of it


def write(folder: Path, flips: int) -> dict[str, dict[str, Any]]:
    """Makes every file; gives its path, the words of its refusal, and whether it may load."""
    import keras_seqzoo as zoo

    good = folder / "good.keras"
    model = zoo.get("simple_rnn_identity", features=2, units=3, recurrent_regularizer="l2")
    model.compile("adam", "mse")
    model.save(good)
    found = {}
    for name, (make, words) in CASES.items():
        archive = Archive(good, folder / f"{name}.keras")
        path = make(archive) or archive.path
        if path == archive.path and not os.path.lexists(path):
            archive.write()
        found[name] = {"path": str(path), "words": words}
    found["other_bytes_than_were_promised"]["sha256"] = "0" * 64
    _spoil_programs(folder)
    whole, rng = good.read_bytes(), np.random.default_rng(0)
    for percent in range(100):
        path = folder / f"cut-{percent}.keras"
        path.write_bytes(whole[: len(whole) * percent // 100])
        found[path.stem] = {"path": str(path), "words": "cut short|damaged"}
    for number in range(flips):
        flipped = bytearray(whole)
        flipped[rng.integers(len(whole))] ^= 1 << rng.integers(8)
        path = folder / f"flip-{number}.keras"
        path.write_bytes(flipped)
        # A date or an attribute of a member is of no account: what loads is what was saved.
        found[path.stem] = {"path": str(path), "words": "", "or_same": True}
    for number in range(flips):
        archive = Archive(good, folder / f"spoiled-{number}.keras")
        changed = bytearray(archive.members[WEIGHTS])
        for at in rng.integers(0, len(changed), 1 + number % 8):
            changed[at] ^= 1 << rng.integers(8)
        archive.members[WEIGHTS] = bytes(changed)
        archive.write()
        # With the right checksum a number may be another one; nothing else may come of it.
        found[archive.path.stem] = {"path": str(archive.path), "words": "", "or_loads": True}
    (folder / "cases.json").write_text(json.dumps(found))
    return found


def main(folder: Path) -> None:
    """Loads every file in one process of bounded memory; prints what each said, as JSON."""
    import keras_seqzoo as zoo
    from keras_seqzoo.errors import ArtifactError

    cases = json.loads((folder / "cases.json").read_text())
    expected = zoo.load(folder / "good.keras").get_weights()
    used = peak_kilobytes()
    said = {}
    for name, case in cases.items():
        try:
            model = zoo.load(case["path"], sha256=case.get("sha256"))
        except ArtifactError as error:
            said[name] = str(error)
        except BaseException as error:
            said[name] = f"ESCAPED {type(error).__name__}: {error}"
        else:
            found = getattr(model, "get_weights", list)()
            same = len(found) == len(expected) and all(map(np.array_equal, found, expected))
            said[name] = "SAME" if same else "LOADED"
    print(json.dumps({"said": said, "kilobytes": [used, peak_kilobytes()]}))


def peak_kilobytes() -> int:
    """The most memory that this process ever held."""
    status = Path("/proc/self/status")
    if status.exists():  # `ru_maxrss` counts what the process that started this one held
        return int(re.search(r"VmHWM:\s+(\d+)", status.read_text())[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main(Path(sys.argv[1]))
