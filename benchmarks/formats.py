"""Which entry can be served in which format: each is exported, and proved by its runtime alone.

    python -m benchmarks.formats [--formats onnx litert] [--names gru_tagger]

Every entry of the zoo, as it comes, is exported in every format of which the packages are there:
`pip install 'keras-seqzoo[onnx,litert,openvino,torch]'`. That of PyTorch is written in a process on
that backend, of models for 20 steps, where an entry has `time=`. Prints a table of the endpoints
that were proved, with the largest difference, in units of the output's deviation, and writes
results/formats.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from benchmarks import common

FORMATS = ("tf_saved_model", "onnx", "litert", "openvino", "torch")


def exported(form: str, names: list[str]) -> dict:
    """By entry: the endpoints that were proved, and how far they are off; or why there is none."""
    import keras

    import keras_seqzoo as zoo

    found = {}
    for name in names or zoo.list_models():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "artifact")
            try:
                fixed = {"time": 20} if form == "torch" and has_time(name) else {}
                keras.utils.set_random_seed(0)  # the same weights in every format and run
                parity = zoo.export(zoo.get(name, **fixed), path, format=form, verbose=0)
            except zoo.errors.SeqZooError as error:
                found[name] = {"error": str(error)}
                continue
            size = sum(one.stat().st_size for one in path.rglob("*") if one.is_file())
        found[name] = {
            "endpoints": sorted({case["endpoint"] for case in parity.cases}),
            "left_out": parity.left_out,
            "difference": parity.difference,
            "megabytes": round(size / 2**20, 2),
        }
        print(f"{form}: {name}", file=sys.stderr)
    return found


def has_time(name: str) -> bool:
    """Whether an entry can be built for a number of steps."""
    from keras_seqzoo import registry

    return "time" in registry.get_entry(name).arguments()


def in_a_process_of_its_own(form: str, names: list[str]) -> dict:
    """`exported`, on the backend that the format is written on."""
    backend = "torch" if form == "torch" else "tensorflow"
    command = [sys.executable, "-m", "benchmarks.formats", "--one", form, "--names", *names]
    done = subprocess.run(
        command, env=os.environ | {"KERAS_BACKEND": backend}, stdout=subprocess.PIPE, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def cell(found: dict) -> str:
    """What a table says of one export."""
    if "error" in found:
        return "no"
    extra = [name for name in found["endpoints"] if name != "serve"]
    if extra == ["encode", "generate_greedy", "step"]:
        extra = ["decodes"]
    return ", ".join([f"{found['difference']:.0e}", *extra])


def main() -> None:
    """Exports everything, prints the table and writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--formats", nargs="*", default=FORMATS, choices=FORMATS)
    parser.add_argument("--names", nargs="*", default=[], help="entries; default all")
    parser.add_argument("--one", choices=FORMATS, help="this one, in this process; print JSON")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(exported(options.one, options.names)))
        return
    found = {form: in_a_process_of_its_own(form, options.names) for form in options.formats}
    print(f"| entry | {' | '.join(f'`{form}`' for form in found)} |")
    print("| --- |" + " --- |" * len(found))
    for name in next(iter(found.values())):
        print(f"| `{name}` | {' | '.join(cell(found[form][name]) for form in found)} |")
    for form, entries in found.items():
        for name, one in entries.items():
            if "error" in one:
                print(f"{form}, {name}: {one['error']}")
    common.write("formats", found)


if __name__ == "__main__":
    main()
