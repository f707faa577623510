"""Entries: a model constructor with its defaults, search space and description, as data."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from keras_seqzoo import errors
from keras_seqzoo.registry.requirements import REQUIREMENTS, Requirements
from keras_seqzoo.registry.search_space import Dimension
from keras_seqzoo.utils.argument_validation import argument_message, unknown_name_message

if TYPE_CHECKING:
    import keras

TASKS = (
    "identity",
    "classification",
    "tagging",
    "seq2seq",
    "reconstruction",
    "forecasting",
)


@dataclasses.dataclass(frozen=True)
class Entry:
    """A named model in the zoo.

    Attributes:
        name: str in snake_case, the key, and the default name of the model.
        constructor: a function that returns the model, or `"module:function"`, which is imported
            on first use.
        task: one of `TASKS`.
        summary: str, one sentence.
        inputs: str, the shape of the inputs.
        outputs: str, the shape of the outputs.
        causal: bool, whether no output depends on a later input.
        family: str, shared by the entries of one constructor. Defaults to the task.
        defaults: mapping of argument to default value, where it differs from the constructor's.
        space: mapping of name to `Dimension`, the default search space.
        references: tuple of str.
        task_class: subclass of `tasks.Task` for a task that is not built in, or None.
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
    task_class: Any = None

    def __post_init__(self):
        _check_entry(self)
        object.__setattr__(self, "family", self.family or self.task)

    def load_constructor(self) -> Callable[..., keras.Model]:
        """The constructor, imported if it is given by name."""
        if not isinstance(self.constructor, str):
            return self.constructor
        constructor = _load_constructor(self.name, self.constructor)
        _check_signature(self, constructor)
        return constructor

    def arguments(self) -> dict[str, Any]:
        """The arguments of the constructor with their defaults for this entry."""
        parameters = inspect.signature(self.load_constructor()).parameters
        arguments = {name: parameter.default for name, parameter in parameters.items()}
        for name in self.defaults:
            if name not in arguments:
                raise errors.RegistrationError(
                    f"The defaults of {self.name!r} must be arguments of its constructor. "
                    + unknown_name_message("argument", name, arguments)
                )
        return arguments | {"name": self.name} | dict(self.defaults)


def check_task_class(task: Any) -> None:
    """Raises `RegistrationError` unless it can be the task of an entry: a `tasks.Task` subclass."""
    name, requirements = getattr(task, "name", None), getattr(task, "requirements", None)
    if not isinstance(name, str) or not isinstance(requirements, Requirements):
        expected = f"one of {', '.join(TASKS)}, or a subclass of tasks.Task with `name` and "
        raise errors.RegistrationError(argument_message("task", f"{expected}`requirements`", task))


def _load_constructor(name: str, target: str) -> Callable[..., keras.Model]:
    module, _, function = target.partition(":")
    try:
        constructor = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise errors.RegistrationError(
            f"The constructor of {name!r} cannot be loaded from {target!r}: {error}"
        ) from error
    return constructor


def _check_entry(entry: Entry) -> None:
    if not isinstance(entry.name, str) or not re.fullmatch(r"[a-z][a-z0-9_]*", entry.name):
        raise errors.RegistrationError(
            argument_message("name", "snake_case, such as 'gru_tagger'", entry.name)
        )
    known = entry.task_class is not None or entry.task in TASKS
    if not isinstance(entry.task, str) or not known:
        raise errors.RegistrationError(
            argument_message("task", f"one of {', '.join(TASKS)}", entry.task)
        )
    if not isinstance(entry.family, str):
        raise errors.RegistrationError(argument_message("family", "a string", entry.family))
    for field in ("summary", "inputs", "outputs"):
        value = getattr(entry, field)
        if not isinstance(value, str) or not value.strip():
            raise errors.RegistrationError(argument_message(field, "a non-empty string", value))
    if not isinstance(entry.causal, bool):
        raise errors.RegistrationError(argument_message("causal", "True or False", entry.causal))
    for field in ("space", "defaults"):
        if not isinstance(getattr(entry, field), Mapping):
            raise errors.RegistrationError(
                argument_message(field, "a mapping", getattr(entry, field))
            )
    for key, value in entry.space.items():
        if not isinstance(value, Dimension):
            raise errors.RegistrationError(
                argument_message(f"space[{key!r}]", "an Int, a Float or a Choice", value)
            )
    if isinstance(entry.constructor, str):
        if not re.fullmatch(r"[\w.]+:\w+", entry.constructor):
            raise errors.RegistrationError(
                argument_message("constructor", "'module:function'", entry.constructor)
            )
    elif callable(entry.constructor):
        _check_signature(entry, entry.constructor)
    else:
        raise errors.RegistrationError(
            argument_message("constructor", "a function or 'module:function'", entry.constructor)
        )


def _check_signature(entry: Entry, constructor: Callable) -> None:
    name = entry.name
    parameters = inspect.signature(constructor).parameters.values()
    for parameter in parameters:
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            raise errors.RegistrationError(
                f"The constructor of {name!r} must name its arguments. Received: "
                f"{parameter}, which would accept misspelled ones."
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
    requirements = REQUIREMENTS.get(entry.task) or entry.task_class.requirements
    missing = requirements.missing({parameter.name for parameter in parameters})
    if missing:
        raise errors.RegistrationError(
            f"The constructor of {name!r} must take {', and '.join(missing)} for the task "
            f"{entry.task!r}. Its model: {requirements.model}."
        )
