"""Model card of an artifact: its inputs and outputs, files, and verification."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path

import keras
import pandas as pd

from keras_seqzoo import registry
from keras_seqzoo.errors import UnknownNameError
from keras_seqzoo.exporting.formats import Format
from keras_seqzoo.exporting.plan import ExportPlan
from keras_seqzoo.exporting.tracing import named_outputs, with_batch_size
from keras_seqzoo.exporting.verification import Parity, file_hashes
from keras_seqzoo.inspection.model_graph import output_of
from keras_seqzoo.registry.card import Card
from keras_seqzoo.utils import files

CARD = "model_card.md"


def write_model_card(
    plan: ExportPlan, artifact_format: Format, folder: Path, parity: Parity | None
) -> None:
    """Writes the model card of an artifact into its folder.

    Args:
        plan: `ExportPlan` with the endpoints of the artifact.
        artifact_format: `Format`.
        folder: the artifact.
        parity: the report, or None where the artifact was not verified.
    """
    hashes = file_hashes(folder) if parity is None else parity.files
    text = model_card(plan, artifact_format, hashes, parity)
    files.write_text(folder / CARD, text)


def model_card(
    plan: ExportPlan, artifact_format: Format, hashes: Mapping[str, str], parity: Parity | None
) -> str:
    """The model card of an artifact, as Markdown.

    Args:
        plan: `ExportPlan` with the endpoints of the artifact. If its model, or the decoder inside,
            has the name of an entry, the card of that entry is included.
        artifact_format: `Format`.
        hashes: mapping of file to SHA-256.
        parity: the report, or None where the artifact was not verified.
    """
    card = _entry_card(plan.model.name, plan.serving_model.name)
    parts = [f"# {plan.model.name}"]
    if card is not None:
        parts += [card.summary, _facts(card)]
    parts += [
        _size(plan.model.count_params(), artifact_format),
        "## Endpoints",
        _endpoints(plan, artifact_format),
    ]
    if plan.left_out:
        parts.append(_list(f"Left out: `{name}`: {why}." for name, why in plan.left_out.items()))
    if card is not None:
        parts += ["## Arguments of the entry", _arguments(card)]
    parts += [
        "## Layers",
        _layers(plan.model.layers),
        "## Parity",
        _parity(parity),
        "## Versions",
        _table(["package", "version"], (parity.versions if parity else _versions()).items()),
        "## Files",
        _table(["file", "SHA-256"], ((f"`{name}`", f"`{sha}`") for name, sha in hashes.items())),
    ]
    if card is not None and card.references:
        parts += ["## References", _list(card.references)]
    return "\n\n".join(parts) + "\n"


def _entry_card(*names: str) -> Card | None:
    """The card of the first entry that has one of the names."""
    for name in names:
        try:
            return registry.describe(name)
        except UnknownNameError:
            continue
    return None


def _facts(card: Card) -> str:
    facts = {"task": card.task, "in": card.inputs, "out": card.outputs}
    facts["causal"] = "yes" if card.causal else "no"
    return _table(["", ""], facts.items())


def _size(parameters: int, artifact_format: Format) -> str:
    batch = artifact_format.batch
    limit = "" if batch is None else f" The batch size is {batch}."
    return f"Format `{artifact_format.name}`; {parameters:,} parameters.{limit}"


def _endpoints(plan: ExportPlan, artifact_format: Format) -> str:
    batch, suffix = artifact_format.batch, artifact_format.suffix
    outputs = named_outputs(output_of(plan.serving_model))
    served = ", ".join(
        f"`{name}` {_shape(tensor.shape, batch)}" for name, tensor in outputs.items()
    )
    rows = []
    for name, endpoint in plan.endpoints.items():
        inputs = ", ".join(
            f"`{spec.name}` {spec.dtype.name} {_shape(spec.shape, batch)}"
            for spec in endpoint.signature
        )
        file = f"`{name}{suffix}`" if suffix else ""
        rows.append((f"`{name}`", file, inputs, served if name == "serve" else ""))
    return _table(["endpoint", "file", "inputs", "outputs"], rows)


def _shape(shape: Iterable[int | None], batch: int | None) -> str:
    sizes = with_batch_size(shape, batch)
    return "(" + ", ".join("any" if size is None else str(size) for size in sizes) + ")"


def _arguments(card: Card) -> str:
    rows = [
        (f"`{name}`", f"`{default!r}`", meaning)
        for name, (default, meaning) in card.arguments.items()
    ]
    return _table(["argument", "default", "meaning"], rows)


def _layers(layers: Iterable[keras.layers.Layer]) -> str:
    rows = [
        (f"`{layer.name}`", type(layer).__name__, f"{layer.count_params():,}") for layer in layers
    ]
    return _table(["layer", "class", "parameters"], rows)


def _parity(parity: Parity | None) -> str:
    if parity is None:
        return "Not checked: the artifact was written with `verify=False`."
    table = pd.DataFrame(parity.cases).astype({"difference": "object"})
    rows = [(*row[:-1], f"{row[-1]:.1e}") for row in table.itertuples(index=False, name=None)]
    return (
        "Outputs of the artifact, served in a process of its own without keras, compared with the "
        f"model's: the largest difference is {parity.difference:.1e} standard deviations of the "
        f"output; {parity.tolerance:.0e} is allowed.\n\n" + _table(list(table.columns), rows)
    )


def _versions() -> dict[str, str]:
    packages = ("keras-seqzoo", "keras")
    return {"python": platform.python_version()} | {name: version(name) for name in packages}


def _table(header: Iterable[str], rows: Iterable[Iterable]) -> str:
    lines = [list(header), *map(list, rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    cells = ([str(cell).replace("|", "\\|") for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def _list(items: Iterable[str]) -> str:
    return "\n".join(f"- {item}" for item in items)
