"""Export of every entry in every format, verified by the runtime of the format.

    python -m benchmarks.formats [--formats onnx litert] [--names gru_tagger]

Every entry of the zoo is exported with default arguments; the formats need
`pip install 'keras-seqzoo[onnx,litert,openvino,torch]'`. PyTorch programs are exported in a process
with the PyTorch backend, from models for 20 steps, if the entry has `time=`. Prints a table of the
verified endpoints, with the largest difference, in units of the output's standard deviation, and
writes results/formats.json.
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


def export_entries(form: str, names: list[str]) -> dict:
    """Verified endpoints and their largest difference, or the error, by entry."""
    import keras

    import keras_seqzoo as zoo

    results = {}
    for name in names or zoo.list_models():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "artifact")
            try:
                fixed = {"time": 20} if form == "torch" and has_time(name) else {}
                keras.utils.set_random_seed(0)  # the same weights in every format and run
                parity = zoo.export(zoo.get(name, **fixed), path, format=form, verbose=0)
            except zoo.errors.SeqZooError as error:
                results[name] = {"error": str(error)}
                continue
            size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        results[name] = {
            "endpoints": sorted({case["endpoint"] for case in parity.cases}),
            "left_out": parity.left_out,
            "difference": parity.difference,
            "megabytes": round(size / 2**20, 2),
        }
        print(f"{form}: {name}", file=sys.stderr)
    return results


def has_time(name: str) -> bool:
    """Whether an entry can be built for a fixed number of steps."""
    from keras_seqzoo import registry

    return "time" in registry.get_entry(name).arguments()


def export_in_new_process(form: str, names: list[str]) -> dict:
    """`export_entries` in a process with the backend of the format."""
    backend = "torch" if form == "torch" else "tensorflow"
    command = [sys.executable, "-m", "benchmarks.formats", "--worker", form, "--names", *names]
    process = subprocess.run(
        command, env=os.environ | {"KERAS_BACKEND": backend}, stdout=subprocess.PIPE, check=True
    )
    return json.loads(process.stdout.splitlines()[-1])


def cell(result: dict) -> str:
    """One export as a cell of the table."""
    if "error" in result:
        return "no"
    extra = [name for name in result["endpoints"] if name != "serve"]
    if extra == ["encode", "generate_greedy", "step"]:
        extra = ["decodes"]
    return ", ".join([f"{result['difference']:.0e}", *extra])


def main() -> None:
    """Export all entries in all formats, print the table and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--formats", nargs="*", default=FORMATS, choices=FORMATS)
    parser.add_argument("--names", nargs="*", default=[], help="entries; default: all")
    parser.add_argument("--worker", choices=FORMATS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(export_entries(options.worker, options.names)))
        return
    results = {form: export_in_new_process(form, options.names) for form in options.formats}
    print(f"| entry | {' | '.join(f'`{form}`' for form in results)} |")
    print("| --- |" + " --- |" * len(results))
    for name in next(iter(results.values())):
        print(f"| `{name}` | {' | '.join(cell(results[form][name]) for form in results)} |")
    for form, entries in results.items():
        for name, result in entries.items():
            if "error" in result:
                print(f"{form}, {name}: {result['error']}")
    common.write("formats", results)


if __name__ == "__main__":
    main()
