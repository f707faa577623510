"""The zoo: register, get, list and describe. Plain Python, no Keras until a model is built."""

from __future__ import annotations

import dataclasses
import fnmatch
import importlib.metadata
import re
import warnings
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from keras_seqzoo import errors
from keras_seqzoo.registry import catalog
from keras_seqzoo.registry.card import Card, make_card
from keras_seqzoo.registry.entry import TASKS, Entry
from keras_seqzoo.utils.argument_validation import (
    argument_message,
    check_choice,
    unknown_name_message,
)

if TYPE_CHECKING:
    import keras

PLUGIN_GROUP = "keras_seqzoo.entries"

_entries: dict[str, Entry] = {}
_loading = False  # True from the first look at the zoo on


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
                unknown_name_message("field of an entry", wrong, known)
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
        A Functional `keras.Model` whose attribute `task` is that of the entry.

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
                unknown_name_message(f"argument of {name}:", argument, arguments)
            )
    model = entry.load()(**arguments | config)
    model.task = entry.task
    return model


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
        check_choice("task", task, TASKS)
        fields["task"] = task
    known = [field.name for field in dataclasses.fields(Entry)]
    for field in fields:
        if field not in known:
            raise errors.ArgumentError(unknown_name_message("field of a card", field, known))
        if not isinstance(fields[field], (str, bool, tuple)):
            raise errors.ArgumentError(
                argument_message(field, "what a card holds, a string or a bool", fields[field])
            )
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

    Args:
        name: str, one of `list_models()`.

    Returns:
        A `Card`; `str(card)` reads well in a terminal, `card.to_dict()` is plain data.

    Raises:
        UnknownNameError: if there is no such entry.

    Example:

    >>> import keras_seqzoo as zoo
    >>> zoo.describe("simple_rnn_identity").arguments["units"][0]
    8
    """
    return make_card(_find(name))


def get_entry(name: str) -> Entry:
    """The entry of that name, for those who build on the zoo."""
    return _find(name)


def _find(name: str) -> Entry:
    entries = _load_entries()
    if not isinstance(name, str) or name not in entries:
        raise errors.UnknownNameError(
            unknown_name_message("model", name, sorted(entries, key=_natural))
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
    for entry in catalog.ENTRIES:
        _add(entry)
    for plugin in importlib.metadata.entry_points(group=PLUGIN_GROUP):
        try:
            plugin.load()()
        except Exception as error:  # one broken package must not take the zoo away
            warnings.warn(
                f"The entries of {plugin.value!r} could not be added: {error}", stacklevel=2
            )


def _patterns(name: str, given: str | Iterable[str]) -> list[str]:
    patterns = [given] if isinstance(given, str) else given
    if isinstance(patterns, Iterable):
        patterns = list(patterns)
        if all(isinstance(pattern, str) for pattern in patterns):
            return patterns
    raise errors.ArgumentError(argument_message(name, "a wildcard or a list of them", given))


def _natural(name: str) -> list:
    parts = re.split(r"(\d+)", name)
    return [int(part) if part.isdigit() else part for part in parts]
