"""Structure of the package: import order, public names, documentation, terminology."""

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


def test_import_contracts_are_kept():
    command = Path(sys.executable).with_name("lint-imports")
    process = subprocess.run([command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stdout


# --------------------------------------------------------------------------------- public names

PUBLIC = {
    "__version__",
    # Functions.
    "adapt", "anomaly", "audit", "describe", "evaluate", "export", "get", "hypermodel", "leakage",
    "list_models", "load", "register", "search", "stream", "train", "unregister",
    # Modules.
    "callbacks", "data", "diagnostics", "layers", "losses", "metrics", "models", "regularizers",
    "tasks",
}  # fmt: skip


def test_public_names_of_the_package_are_pinned():
    assert sorted(zoo.__all__) == sorted(PUBLIC)
    assert dir(zoo) == sorted(PUBLIC)
    for name in PUBLIC:
        assert getattr(zoo, name) is not None


@pytest.mark.parametrize("name", [name for name in sorted(PUBLIC) if inspect.ismodule(
    getattr(zoo, name))])  # fmt: skip
def test_public_names_of_a_module_exist_and_are_documented(name):
    module = getattr(zoo, name)
    names = getattr(module, "__all__", [])
    assert len(set(names)) == len(names)
    for public in names:
        assert inspect.getdoc(getattr(module, public)), public


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


def test_public_functions_take_at_most_three_positional_arguments():
    for name in FUNCTIONS:
        parameters = inspect.signature(getattr(zoo, name)).parameters.values()
        positional = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
        assert len(positional) <= 3, name


# --------------------------------------------------------------------------------------- README


def test_readme_has_the_install_and_test_commands():
    lines = (ROOT / "README.md").read_text().splitlines()
    assert any(line.startswith("pip install") and "keras-seqzoo search" in line for line in lines)
    assert any(line.startswith("pip install") and "pytest" in line for line in lines)


def test_format_table_of_the_readme_equals_the_benchmark_results():
    results = json.loads((ROOT / "benchmarks/results/formats.json").read_text())
    names = zoo.list_models()
    assert all(set(results[form]) == set(names) for form in formats.FORMATS)
    lines = (ROOT / "README.md").read_text().splitlines()
    for name in names:
        row = " | ".join(
            [f"`{name}`", *(formats.cell(results[form][name]) for form in formats.FORMATS)]
        )
        assert f"| {row} |" in lines


# ---------------------------------------------------------------------------------------- words

WORDS = "tests/private_words.txt"
ALLOWED = "tests/private_words_allowed.txt"
SEARCHED = ("keras_seqzoo", "benchmarks", "tests", "docs")
SUFFIXES = {".py", ".md", ".j2", ".txt", ".toml", ".cfg"}


def read_entries(path: str) -> list[str]:
    """Lines of a word list without comments and blank lines."""
    lines = (line.partition("#")[0].strip() for line in (ROOT / path).read_text().splitlines())
    return [line for line in lines if line]


def searched_files() -> list[str]:
    """Files of the repository that people read, but the word lists themselves."""
    paths = [path for path in ROOT.iterdir() if path.is_file()]
    paths += [path for folder in SEARCHED for path in (ROOT / folder).rglob("*")]
    names = {path.relative_to(ROOT).as_posix() for path in paths if path.suffix in SUFFIXES}
    return sorted(names - {WORDS, ALLOWED})


def word_pattern(word: str) -> re.Pattern:
    """Matches an identifier as a whole word, a phrase in any case and across line breaks."""
    parts = word.split()
    return re.compile(
        r"(?<!\w)" + r"[\s#>]+".join(map(re.escape, parts)) + r"(?!\w)",
        re.IGNORECASE if len(parts) > 1 else 0,
    )


def private_words(text: str, words: list[str]) -> list[tuple[int, str]]:
    """Line number and word of every private word in a text."""
    return sorted(
        (text.count("\n", 0, match.start()) + 1, word)
        for word in words
        for match in word_pattern(word).finditer(text)
    )


def test_private_words_are_found_as_identifiers_and_as_phrases():
    words = ["old_name", "old phrase"]
    text = "old_name(x)\n# An Old\n# phrase."
    assert private_words(text, words) == [(1, "old_name"), (2, "old phrase")]
    assert private_words("old_names, Old_name, old phrases", words) == []


def test_repository_has_no_private_words():
    words = read_entries(WORDS)
    allowed = {tuple(entry.split(": ", 1)) for entry in read_entries(ALLOWED)}
    hits = [
        (name, line, word)
        for name in searched_files()
        for line, word in private_words((ROOT / name).read_text(encoding="utf-8"), words)
    ]
    reported = [
        f"{name}:{line}: {word}" for name, line, word in hits if (name, word) not in allowed
    ]
    assert not reported, "\n".join(reported)
    assert allowed <= {(name, word) for name, _, word in hits}, "allowances that apply to nothing"
