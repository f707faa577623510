"""Registration, lookup and listing of entries, without importing Keras."""

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
from keras_seqzoo.registry.entry import TASKS, Entry, check_task_class
from keras_seqzoo.utils.argument_validation import (
    argument_message,
    check_choice,
    unknown_name_message,
)

if TYPE_CHECKING:
    import keras

PLUGIN_GROUP = "keras_seqzoo.entries"

_entries: dict[str, Entry] = {}
_loading = False  # True once the built-in entries and plug-ins are being loaded


def register(
    name: str,
    constructor: Callable[..., keras.Model] | str | None = None,
    *,
    task: str | type,
    summary: str,
    inputs: str,
    outputs: str,
    causal: bool,
    **fields: Any,
) -> Callable:
    """Add an entry to the zoo; without a constructor, return a decorator.

    A package can add entries as a plug-in: its entry point in the group `keras_seqzoo.entries` is a
    function without arguments that calls `register`, with constructors as `"module:function"` so
    that listing does not import them.

    Args:
        name: str in snake_case, not registered yet.
        constructor: function that returns a `keras.Model`, or `"module:function"`. It has an
            argument `name`, and every argument has a default, so that `get(name)` works.
        task: one of `registry.TASKS`, whose requirements are in `registry.requirements`; or a
            subclass of `tasks.Task` with requirements of its own.
        summary: str, one sentence.
        inputs: str, the shape of the inputs, such as `"(batch, time, features)"`.
        outputs: str, the shape of the outputs.
        causal: bool, whether no output depends on a later input.
        **fields: the other fields of `Entry`: family, defaults, space, references.

    Returns:
        The constructor, or the decorator that returns it.

    Raises:
        RegistrationError: if the name is already registered, or a field is malformed.

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
    if not isinstance(task, str):
        check_task_class(task)
        fields["task_class"], task = task, task.name
    fields |= {"task": task, "summary": summary, "inputs": inputs, "outputs": outputs}

    def add(function: Any) -> Any:
        try:
            entry = Entry(name=name, constructor=function, causal=causal, **fields)
        except TypeError as error:
            known = [field.name for field in dataclasses.fields(Entry)]
            unknown = next((field for field in fields if field not in known), None)
            if unknown is None:
                raise
            raise errors.RegistrationError(
                unknown_name_message("field of an entry", unknown, known)
            ) from error
        _load_entries()
        _add(entry)
        return function

    return add if constructor is None else add(constructor)


def unregister(name: str) -> None:
    """Remove an entry from the zoo, for tests and interactive work.

    Raises:
        UnknownNameError: if there is no such entry.
    """
    _find(name)
    del _entries[name]


def get(name: str, /, **config: Any) -> keras.Model:
    """Build the model of an entry, uncompiled.

    Args:
        name: str, one of `list_models()`.
        **config: arguments of the constructor; `describe(name)` lists them. None is required. The
            keyword `name` is the name of the model.

    Returns:
        A Functional `keras.Model` whose attribute `task` is that of the entry.

    Raises:
        UnknownNameError: if there is no such entry; the message suggests the nearest name.
        UnknownArgumentError: if the constructor has no such argument; the message suggests the
            nearest.
        ArgumentError: if an argument has an invalid value.

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
    model = entry.load_constructor()(**arguments | config)
    model.task = entry.task
    return model


def model_task(model: Any) -> str | None:
    """The task of a model: as `get` or `zoo.load` set it, else that of the entry of its name.

    Keras does not store `model.task` in a model file.

    Args:
        model: `keras.Model`, or a function of arrays, which has no task.
    """
    task, name = getattr(model, "task", None), getattr(model, "name", None)
    if task is None and name in list_models():
        return get_entry(name).task
    return task


def list_models(
    pattern: str | Iterable[str] = "*",
    *,
    task: str | None = None,
    exclude: str | Iterable[str] = (),
    **fields: Any,
) -> list[str]:
    """List the names of matching entries, in natural order (`rnn_9` before `rnn_10`).

    Args:
        pattern: wildcard such as `"*tagger*"`, or several; a name must match one of them.
        task: one of `registry.TASKS`, or None for all.
        exclude: wildcard, or several; names that match one of them are left out.
        **fields: required values of card fields, such as `causal=True`.

    Raises:
        ArgumentError: if the task or a field is unknown; the message suggests the nearest.

    Example:

    >>> import keras_seqzoo as zoo
    >>> zoo.list_models("simple_rnn*", task="identity", causal=True)
    ['simple_rnn_identity']
    """
    included, excluded = _patterns("pattern", pattern), _patterns("exclude", exclude)
    if task is not None:
        tasks = dict.fromkeys([*TASKS, *(entry.task for entry in entries())])
        check_choice("task", task, tasks)
        fields["task"] = task
    known = [field.name for field in dataclasses.fields(Entry)]
    for field in fields:
        if field not in known:
            raise errors.ArgumentError(unknown_name_message("field of a card", field, known))
        if not isinstance(fields[field], (str, bool, tuple)):
            raise errors.ArgumentError(
                argument_message(field, "a value of a card field, a str or a bool", fields[field])
            )
    names = [
        name
        for name, entry in _load_entries().items()
        if any(fnmatch.fnmatchcase(name, wildcard) for wildcard in included)
        and not any(fnmatch.fnmatchcase(name, wildcard) for wildcard in excluded)
        and all(getattr(entry, field) == value for field, value in fields.items())
    ]
    return sorted(names, key=_natural_key)


def describe(name: str) -> Card:
    """The card of an entry: shapes, arguments, search space and references.

    Args:
        name: str, one of `list_models()`.

    Returns:
        A `Card`; `str(card)` is for a terminal, `card.to_dict()` for JSON.

    Raises:
        UnknownNameError: if there is no such entry.

    Example:

    >>> import keras_seqzoo as zoo
    >>> zoo.describe("simple_rnn_identity").arguments["units"][0]
    8
    """
    return make_card(_find(name))


def entries() -> list[Entry]:
    """All entries, in the order of registration."""
    return list(_load_entries().values())


def get_entry(name: str) -> Entry:
    """The `Entry` of that name."""
    return _find(name)


def _find(name: str) -> Entry:
    entries = _load_entries()
    if not isinstance(name, str) or name not in entries:
        raise errors.UnknownNameError(
            unknown_name_message("model", name, sorted(entries, key=_natural_key))
        )
    return entries[name]


def _add(entry: Entry) -> None:
    if entry.name in _entries:
        raise errors.RegistrationError(
            f"`name` must not be registered already. Received: name={entry.name!r}. Choose another "
            "name, or call `unregister` first."
        )
    _entries[entry.name] = entry


def _load_entries() -> dict[str, Entry]:
    global _loading
    if not _loading:
        _loading = True  # set first, because plug-ins call `register`, which calls this function
        _load_builtin_and_plugins()
    return _entries


def _load_builtin_and_plugins() -> None:
    for entry in catalog.ENTRIES:
        _add(entry)
    for plugin in importlib.metadata.entry_points(group=PLUGIN_GROUP):
        try:
            plugin.load()()
        except Exception as error:  # a broken plug-in must not disable the zoo
            warnings.warn(
                f"The entries of {plugin.value!r} could not be added: {error}", stacklevel=2
            )


def _patterns(name: str, value: str | Iterable[str]) -> list[str]:
    patterns = [value] if isinstance(value, str) else value
    if isinstance(patterns, Iterable):
        patterns = list(patterns)
        if all(isinstance(pattern, str) for pattern in patterns):
            return patterns
    raise errors.ArgumentError(argument_message(name, "a wildcard or a list of them", value))


def _natural_key(name: str) -> list:
    parts = re.split(r"(\d+)", name)
    return [int(part) if part.isdigit() else part for part in parts]
