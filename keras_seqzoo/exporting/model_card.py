"""The card of an artifact: what it is, what it takes and gives, and how it was proved."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping
from importlib.metadata import version

import keras
import pandas as pd

from keras_seqzoo import registry
from keras_seqzoo.errors import UnknownNameError
from keras_seqzoo.exporting.endpoints import Endpoint
from keras_seqzoo.exporting.formats import Format
from keras_seqzoo.exporting.tracing import named
from keras_seqzoo.exporting.verification import Parity
from keras_seqzoo.inspection.model_graph import decoder_of, output_of
from keras_seqzoo.registry.card import Card

CARD = "model_card.md"


def model_card(
    model: keras.Model,
    form: Format,
    known: Mapping[str, Endpoint],
    left_out: Mapping[str, str],
    hashes: Mapping[str, str],
    parity: Parity | None,
) -> str:
    """The card of an artifact, as Markdown.

    Args:
        model: `keras.Model`; where its name is that of an entry, so is the card's substance.
        form: `Format` of the artifact.
        known: mapping of name to `Endpoint`, those that it holds.
        left_out: mapping of name to str, those that it cannot hold, and why.
        hashes: mapping of file to SHA-256.
        parity: the report, or None where nothing was proved.
    """
    card = _card_of(model)
    parts = [
        f"# {model.name}",
        *([] if card is None else [card.summary, _facts(card)]),
        _size(model, form),
        "## Endpoints",
        _endpoints(model, form, known),
        *(
            [_list(f"Left out: `{name}`, as {why}." for name, why in left_out.items())]
            * bool(left_out)
        ),
        *([] if card is None else ["## Arguments of the entry", _arguments(card)]),
        "## Layers",
        _layers(model),
        "## Parity",
        _parity(parity),
        "## Versions",
        _table(["package", "version"], (parity.versions if parity else _versions()).items()),
        "## Files",
        _table(["file", "SHA-256"], ((f"`{name}`", f"`{sha}`") for name, sha in hashes.items())),
        *(["## References", _list(card.references)] if card and card.references else []),
    ]
    return "\n\n".join(parts) + "\n"


def _card_of(model: keras.Model) -> Card | None:
    """That of the entry whose name the model bears, or the one inside it."""
    for one in (model, decoder_of(model)):
        try:
            return None if one is None else registry.describe(one.name)
        except UnknownNameError:
            continue
    return None


def _facts(card: Card) -> str:
    facts = {"task": card.task, "in": card.inputs, "out": card.outputs}
    facts["causal"] = "yes" if card.causal else "no"
    return _table(["", ""], facts.items())


def _size(model: keras.Model, form: Format) -> str:
    rows = "" if form.rows is None else f" Takes {form.rows} row at a time."
    return f"Format `{form.name}`; {model.count_params():,} parameters.{rows}"


def _endpoints(model: keras.Model, form: Format, known: Mapping[str, Endpoint]) -> str:
    said = named(output_of(decoder_of(model) or model))
    rows = []
    for name, endpoint in known.items():
        takes = ", ".join(
            f"`{spec.name}` {spec.dtype.name} {_shape(spec.shape, form.rows)}"
            for spec in endpoint.signature
        )
        gives = (
            ", ".join(f"`{one}` {_shape(tensor.shape, form.rows)}" for one, tensor in said.items())
            if name == "serve"
            else ""
        )
        rows.append((f"`{name}`", f"`{name}{form.ending}`" if form.ending else "", takes, gives))
    return _table(["endpoint", "file", "takes", "gives"], rows)


def _shape(shape: Iterable, rows: int | None) -> str:
    sizes = list(shape)
    sizes = [rows, *sizes[1:]] if sizes and sizes[0] is None else sizes
    return "(" + ", ".join("any" if size is None else str(size) for size in sizes) + ")"


def _arguments(card: Card) -> str:
    rows = [
        (f"`{name}`", f"`{default!r}`", meaning)
        for name, (default, meaning) in card.arguments.items()
    ]
    return _table(["argument", "default", "meaning"], rows)


def _layers(model: keras.Model) -> str:
    rows = [
        (f"`{layer.name}`", type(layer).__name__, f"{layer.count_params():,}")
        for layer in model.layers
    ]
    return _table(["layer", "class", "parameters"], rows)


def _parity(parity: Parity | None) -> str:
    if parity is None:
        return "Not checked: the artifact was written with `verify=False`."
    table = pd.DataFrame(parity.cases).astype({"difference": "object"})
    rows = [(*row[:-1], f"{row[-1]:.1e}") for row in table.itertuples(index=False, name=None)]
    return (
        "Answers of the artifact, served in a process of its own without keras, against the "
        f"model's: the largest difference is {parity.difference:.1e} of the output's deviation; "
        f"{parity.tolerance:.0e} was allowed.\n\n" + _table(list(table.columns), rows)
    )


def _versions() -> dict[str, str]:
    packages = ("keras-seqzoo", "keras")
    return {"python": platform.python_version()} | {name: version(name) for name in packages}


def _table(head: Iterable[str], rows: Iterable[Iterable]) -> str:
    lines = [list(head), *map(list, rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    cells = ([str(cell).replace("|", "\\|") for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def _list(items: Iterable[str]) -> str:
    return "\n".join(f"- {item}" for item in items)
