"""Cards: an entry and its constructor arguments, for a terminal or as JSON."""

from __future__ import annotations

import dataclasses
import inspect
import re
import textwrap
from collections.abc import Mapping
from typing import Any

from keras_seqzoo.registry.entry import Entry


@dataclasses.dataclass(frozen=True)
class Card:
    """The description of an entry that `describe` returns. `str(card)` is for a terminal."""

    entry: Entry
    arguments: Mapping[str, tuple[Any, str]]  # name: (default, description)

    def __getattr__(self, field: str) -> Any:
        if field.startswith("_"):
            raise AttributeError(field)
        return getattr(self.entry, field)

    def to_dict(self) -> dict[str, Any]:
        """The card as a dict for JSON."""
        card = {
            field: getattr(self.entry, field)
            for field in ("name", "task", "family", "summary", "inputs", "outputs", "causal")
        }
        card["arguments"] = {
            name: {"default": default, "description": description}
            for name, (default, description) in self.arguments.items()
        }
        card["space"] = {name: str(dimension) for name, dimension in self.entry.space.items()}
        card["references"] = list(self.entry.references)
        return card

    def __str__(self) -> str:
        entry = self.entry
        lines = [
            entry.name,
            *textwrap.wrap(entry.summary, 96, initial_indent="  ", subsequent_indent="  "),
            "",
            f"  task     {entry.task}",
            f"  inputs   {entry.inputs}",
            f"  outputs  {entry.outputs}",
            f"  causal   {'yes' if entry.causal else 'no'}",
        ]
        lines += ["", "  Arguments"]
        width = max((len(name) for name in self.arguments), default=0)
        for name, (default, description) in self.arguments.items():
            indent = " " * (width + 6)
            text = f"{description} (default {default!r})".lstrip()
            lines += textwrap.wrap(
                text, 96, initial_indent=f"    {name:<{width}}  ", subsequent_indent=indent
            )
        if entry.space:
            lines += ["", "  Search space"]
            width = max(map(len, entry.space))
            for name, dimension in entry.space.items():
                when = "".join(
                    f" (when {parent} is {' or '.join(values)})"
                    for parent, values in dimension.when.items()
                )
                lines.append(f"    {name:<{width}}  {dimension}{when}")
        if entry.references:
            lines += ["", "  References", *(f"    {reference}" for reference in entry.references)]
        return "\n".join(lines)


def make_card(entry: Entry) -> Card:
    """The card of an entry; descriptions of arguments are from the constructor's docstring."""
    descriptions = _docstring_arguments(inspect.getdoc(entry.load_constructor()) or "")
    arguments = {
        name: (default, descriptions.get(name, "")) for name, default in entry.arguments().items()
    }
    return Card(entry, arguments)


def _docstring_arguments(docstring: str) -> dict[str, str]:
    """`{argument: description}` from the `Args:` section of a docstring."""
    section = re.search(r"^Args:\n(.*?)(?=^\S|\Z)", docstring, re.MULTILINE | re.DOTALL)
    if section is None:
        return {}
    items = re.findall(
        r"^    (\w+): (.*?)(?=^    \w|\Z)", section[1].rstrip() + "\n", re.MULTILINE | re.DOTALL
    )
    return {name: " ".join(text.split()) for name, text in items}
