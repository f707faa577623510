"""The zoo: register, get, list and describe entries. Plain Python, no Keras until a model is built."""

from __future__ import annotations

import dataclasses
import fnmatch
import importlib
import importlib.metadata
import inspect
import re
import textwrap
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from keras_seqzoo import errors
from keras_seqzoo.space import Dimension

if TYPE_CHECKING:
    import keras

TASKS = (
    "identity",
    "classification",
    "tagging",
    "transduction",
    "reconstruction",
    "forecasting",
)
PLUGIN_GROUP = "keras_seqzoo.entries"

_entries: dict[str, Entry] = {}
_loading = False  # True from the first look at the zoo on


@dataclasses.dataclass(frozen=True)
class Entry:
    """One name in the zoo.

    Attributes:
        name: str in snake_case, the key, and the default name of the model.
        constructor: the function that returns the model, or `"module:function"`, which is
            imported on first use.
        task: one of `TASKS`.
        summary: str, one sentence.
        inputs: str, the shape that goes in.
        outputs: str, the shape that comes out.
        causal: bool, whether no output depends on a later input.
        family: str, the entries of one constructor share it. Defaults to the task.
        defaults: mapping of argument to value, where they differ from the constructor's own.
        space: mapping of name to `Dimension`, what a search varies.
        references: tuple of str.
    """

    name: str
    constructor: Callable[..., keras.Model] | str
    task: str
    summary: str
    inputs: str
    outputs: str
    causal: bool
    family: str = ""
    defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    space: Mapping[str, Dimension] = dataclasses.field(default_factory=dict)
    references: tuple[str, ...] = ()

    def __post_init__(self):
        _check_entry(self)
        object.__setattr__(self, "family", self.family or self.task)

    def load(self) -> Callable[..., keras.Model]:
        """The constructor itself, imported now if it is given by name."""
        if not isinstance(self.constructor, str):
            return self.constructor
        return _load_constructor(self.name, self.constructor)

    def arguments(self) -> dict[str, Any]:
        """Every argument of the constructor with its default for this entry."""
        parameters = inspect.signature(self.load()).parameters
        own = {name: parameter.default for name, parameter in parameters.items()}
        return own | {"name": self.name} | dict(self.defaults)


@dataclasses.dataclass(frozen=True)
class Card:
    """What `describe` returns. `str(card)` is meant for a terminal."""

    entry: Entry
    arguments: Mapping[str, tuple[Any, str]]  # name: (default, meaning and range)

    def __getattr__(self, field: str) -> Any:
        if field.startswith("_"):
            raise AttributeError(field)
        return getattr(self.entry, field)

    def to_dict(self) -> dict[str, Any]:
        """The card as plain data, for JSON."""
        card = {
            field: getattr(self.entry, field)
            for field in ("name", "task", "family", "summary", "inputs", "outputs", "causal")
        }
        card["arguments"] = {
            name: {"default": default, "meaning": meaning}
            for name, (default, meaning) in self.arguments.items()
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
            f"  in       {entry.inputs}",
            f"  out      {entry.outputs}",
            f"  causal   {'yes' if entry.causal else 'no'}",
        ]
        lines += ["", "  Arguments"]
        width = max((len(name) for name in self.arguments), default=0)
        for name, (default, meaning) in self.arguments.items():
            indent = " " * (width + 6)
            text = f"{meaning} (default {default!r})" if meaning else f"(default {default!r})"
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


def register(
    name: str,
    constructor: Callable[..., keras.Model] | str | None = None,
    *,
    task: str,
    summary: str,
    inputs: str,
    outputs: str,
    causal: bool,
    **fields: Any,
) -> Callable:
    """Puts an entry into the zoo; a decorator when no constructor is given.

    A package can add entries without being imported by hand: it names a function without
    arguments under the entry-point group `keras_seqzoo.entries`, and that function calls
    `register`, with constructors as `"module:function"` so that listing stays light.

    Args:
        name: str in snake_case, not taken yet.
        constructor: function that returns a `keras.Model`, or `"module:function"`. All its
            arguments have defaults, so that `get(name)` works, and one of them is `name`.
        task: one of `registry.TASKS`.
        summary: str, one sentence.
        inputs: str, shape in, such as `"(batch, time, features)"`.
        outputs: str, shape out.
        causal: bool, whether no output depends on a later input.
        **fields: the other fields of `Entry`: family, defaults, space, references.

    Returns:
        The constructor, or the decorator that returns it.

    Raises:
        RegistrationError: if the name is taken, or a field is malformed.

    Example:

    >>> import keras, keras_seqzoo as zoo
    >>> @zoo.register("last_step", task="identity", summary="The last step.", causal=True,
    ...               inputs="(batch, time, features)", outputs="(batch, features)")
    ... def last_step(*, features: int = 1, name: str = "last_step"):
    ...     inputs = keras.Input((None, features), name="features")
    ...     return keras.Model(inputs, inputs[:, -1], name=name)
    >>> zoo.get("last_step", features=2).output_shape
    (None, 2)
    >>> zoo.unregister("last_step")
    """
    fields |= {"task": task, "summary": summary, "inputs": inputs, "outputs": outputs}

    def add(function: Callable) -> Callable:
        try:
            entry = Entry(name=name, constructor=function, causal=causal, **fields)
        except TypeError as error:
            known = [field.name for field in dataclasses.fields(Entry)]
            wrong = next((field for field in fields if field not in known), None)
            if wrong is None:
                raise
            raise errors.RegistrationError(
                errors.unknown("field of an entry", wrong, known)
            ) from error
        _load_entries()
        _add(entry)
        return function

    return add if constructor is None else add(constructor)


def unregister(name: str) -> None:
    """Takes an entry out of the zoo, for tests and interactive work.

    Raises:
        UnknownNameError: if there is no such entry.
    """
    _find(name)
    del _entries[name]


def get(name: str, /, **config: Any) -> keras.Model:
    """Builds the model of an entry, uncompiled.

    Args:
        name: str, one of `list_models()`.
        **config: arguments of the constructor; `describe(name)` lists them. None is required.
            `name` among them is the model's own.

    Returns:
        A Functional `keras.Model`.

    Raises:
        UnknownNameError: if there is no such entry; the message has the nearest and all names.
        UnknownArgumentError: if the constructor has no such argument; the same.
        ArgumentError: if an argument has a value that cannot be used.

    Example:

    >>> import keras_seqzoo as zoo
    >>> zoo.get("simple_rnn_identity", features=3, units=8).output_shape
    (None, None, 3)
    """
    entry = _find(name)
    arguments = entry.arguments()
    for argument in config:
        if argument not in arguments:
            raise errors.UnknownArgumentError(
                errors.unknown(f"argument of {name}:", argument, arguments)
            )
    return entry.load()(**arguments | config)


def list_models(
    pattern: str | Iterable[str] = "*",
    *,
    task: str | None = None,
    exclude: str | Iterable[str] = (),
    **fields: Any,
) -> list[str]:
    """Names in the zoo that match, in natural order (`rnn_9` before `rnn_10`).

    Args:
        pattern: wildcard such as `"*tagger*"`, or several of which one must match.
        task: one of `registry.TASKS`, or None for all.
        exclude: wildcard or several; names that match one are left out.
        **fields: fields of the card that must be equal, such as `causal=True`.

    Raises:
        ArgumentError: if the task or a field is unknown; the message suggests the nearest.

    Example:

    >>> import keras_seqzoo as zoo
    >>> zoo.list_models("simple_rnn*", task="identity", causal=True)
    ['simple_rnn_identity']
    """
    wanted, unwanted = _patterns("pattern", pattern), _patterns("exclude", exclude)
    if task is not None:
        errors.check_choice("task", task, TASKS)
        fields["task"] = task
    known = [field.name for field in dataclasses.fields(Entry)]
    for field in fields:
        if field not in known:
            raise errors.ArgumentError(errors.unknown("field of a card", field, known))
    names = [
        name
        for name, entry in _load_entries().items()
        if any(fnmatch.fnmatchcase(name, wildcard) for wildcard in wanted)
        and not any(fnmatch.fnmatchcase(name, wildcard) for wildcard in unwanted)
        and all(getattr(entry, field) == value for field, value in fields.items())
    ]
    return sorted(names, key=_natural)


def describe(name: str) -> Card:
    """The card of an entry: shapes, every argument with default and range, space, references.

    Raises:
        UnknownNameError: if there is no such entry.
    """
    entry = _find(name)
    meanings = _docstring_arguments(inspect.getdoc(entry.load()) or "")
    arguments = {
        argument: (default, meanings.get(argument, ""))
        for argument, default in entry.arguments().items()
    }
    return Card(entry, arguments)


def entry(name: str) -> Entry:
    """The entry of that name, for those who build on the zoo."""
    return _find(name)


def _find(name: str) -> Entry:
    entries = _load_entries()
    if not isinstance(name, str) or name not in entries:
        raise errors.UnknownNameError(
            errors.unknown("model", name, sorted(entries, key=_natural))
        )
    return entries[name]


def _add(entry: Entry) -> None:
    if entry.name in _entries:
        raise errors.RegistrationError(
            f"`name` must not be taken. Received: name={entry.name!r}, which is in the zoo "
            "already. Choose another name."
        )
    _entries[entry.name] = entry


def _load_entries() -> dict[str, Entry]:
    global _loading
    if not _loading:
        _loading = True  # first of all: plug-ins call `register`, which comes back here
        _load_builtin_and_plugins()
    return _entries


def _load_builtin_and_plugins() -> None:
    from keras_seqzoo import catalog

    for entry in catalog.ENTRIES:
        _add(entry)
    for plugin in importlib.metadata.entry_points(group=PLUGIN_GROUP):
        try:
            plugin.load()()
        except Exception as error:  # one broken package must not take the zoo away
            warnings.warn(
                f"The entries of {plugin.value!r} could not be added: {error}", stacklevel=2
            )


def _load_constructor(name: str, target: str) -> Callable[..., keras.Model]:
    module, _, function = target.partition(":")
    try:
        constructor = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise errors.RegistrationError(
            f"The constructor of {name!r} cannot be loaded from {target!r}: {error}"
        ) from error
    _check_signature(name, constructor)
    return constructor


def _check_entry(entry: Entry) -> None:
    if not isinstance(entry.name, str) or not re.fullmatch(r"[a-z][a-z0-9_]*", entry.name):
        raise errors.RegistrationError(
            errors.sentence("name", "snake_case, such as 'gru_tagger'", entry.name)
        )
    if entry.task not in TASKS:
        raise errors.RegistrationError(
            errors.sentence("task", f"one of {', '.join(TASKS)}", entry.task)
        )
    for field in ("summary", "inputs", "outputs"):
        value = getattr(entry, field)
        if not isinstance(value, str) or not value.strip():
            raise errors.RegistrationError(errors.sentence(field, "a non-empty string", value))
    if not isinstance(entry.causal, bool):
        raise errors.RegistrationError(errors.sentence("causal", "True or False", entry.causal))
    for key, value in dict(entry.space).items():
        if not isinstance(value, Dimension):
            raise errors.RegistrationError(
                errors.sentence(f"space[{key!r}]", "an Int, a Float or a Choice", value)
            )
    if isinstance(entry.constructor, str):
        if not re.fullmatch(r"[\w.]+:\w+", entry.constructor):
            raise errors.RegistrationError(
                errors.sentence("constructor", "'module:function'", entry.constructor)
            )
    elif callable(entry.constructor):
        _check_signature(entry.name, entry.constructor)
    else:
        raise errors.RegistrationError(
            errors.sentence("constructor", "a function or 'module:function'", entry.constructor)
        )


def _check_signature(name: str, constructor: Callable) -> None:
    parameters = inspect.signature(constructor).parameters.values()
    for parameter in parameters:
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            raise errors.RegistrationError(
                f"The constructor of {name!r} must name its arguments. Received: "
                f"{parameter}, which would swallow misspelt ones."
            )
        if parameter.default is parameter.empty:
            raise errors.RegistrationError(
                f"Every argument of the constructor of {name!r} must have a default, so that "
                f"get({name!r}) works. Received: {parameter.name} without one."
            )
    if "name" not in {parameter.name for parameter in parameters}:
        raise errors.RegistrationError(
            f"The constructor of {name!r} must take `name`, the name of the model."
        )


def _patterns(name: str, given: str | Iterable[str]) -> list[str]:
    patterns = [given] if isinstance(given, str) else given
    if isinstance(patterns, Iterable):
        patterns = list(patterns)
        if all(isinstance(pattern, str) for pattern in patterns):
            return patterns
    raise errors.ArgumentError(errors.sentence(name, "a wildcard or a list of them", given))


def _natural(name: str) -> list:
    parts = re.split(r"(\d+)", name)
    return [int(part) if part.isdigit() else part for part in parts]


def _docstring_arguments(docstring: str) -> dict[str, str]:
    """`{argument: meaning}` from the `Args:` section of a docstring."""
    section = re.search(r"^Args:\n(.*?)(?=^\S|\Z)", docstring, re.MULTILINE | re.DOTALL)
    if section is None:
        return {}
    items = re.findall(
        r"^    (\w+): (.*?)(?=^    \w|\Z)", section[1].rstrip() + "\n", re.MULTILINE | re.DOTALL
    )
    return {name: " ".join(text.split()) for name, text in items}
