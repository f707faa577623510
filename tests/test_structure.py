"""The shape of the package: imports point downwards, public names are documented."""

import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import keras_seqzoo as zoo
from benchmarks import formats

ROOT = Path(__file__).parent.parent
FUNCTIONS = [
    name for name in zoo.__all__ if inspect.isfunction(getattr(zoo, name)) and name != "unregister"
]


def test_imports_point_downwards():
    command = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", FUNCTIONS)
def test_public_functions_document_every_argument_and_an_example(name):
    function = getattr(zoo, name)
    text = inspect.getdoc(function)
    parameters = [
        parameter
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind is not parameter.VAR_KEYWORD
    ]
    for parameter in parameters:
        assert re.search(rf"^\s+{parameter.name}: ", text, re.MULTILINE), parameter.name
    assert "Raises:" in text
    assert ">>>" in text


def test_positional_arguments_are_only_what_a_call_is_about():
    for name in FUNCTIONS:
        parameters = inspect.signature(getattr(zoo, name)).parameters.values()
        positional = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
        assert len(positional) <= 3, name


def test_readme_holds_the_two_commands():
    lines = (ROOT / "README.md").read_text().splitlines()
    assert any(line.startswith("pip install") and "keras-seqzoo search" in line for line in lines)
    assert any(line.startswith("pip install") and "pytest" in line for line in lines)


def test_the_readme_says_of_formats_what_the_benchmark_found():
    found = json.loads((ROOT / "benchmarks/results/formats.json").read_text())
    names = zoo.list_models()
    assert all(set(found[form]) == set(names) for form in formats.FORMATS)
    lines = (ROOT / "README.md").read_text().splitlines()
    for name in names:
        row = " | ".join(
            [f"`{name}`", *(formats.cell(found[form][name]) for form in formats.FORMATS)]
        )
        assert f"| {row} |" in lines
