"""Options that are read off the fields of the library's dataclasses.

A command writes a parameter for all options of a dataclass::

    @with_generated_options
    def train(model: AnyNetwork, recipe: Annotated[Recipe, Fields(Recipe)]) -> None: ...

and gets the dataclass. A field is one option: its name, type and default are those of the field,
its help is the field's entry under "Attributes:" in the docstring of its class. The metadata of a
field may say more:

* ``option``: the name of the option, such as ``"--regularizer"``; None for no option.
* ``choices``: the texts that are allowed.
* ``help``: help in place of the docstring's.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from dataclasses import Field as DataclassField
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer

from keras_structsparse.cli import parsing

Range = tuple[float, float]
Values = dict[str, Any]
"""The values of the options by field, for a command that makes the dataclass itself."""

TEXTS: Mapping[Any, Mapping[str, Any]] = {
    int: {"parser": parsing.whole, "metavar": "INT"},
    int | None: {"parser": parsing.whole, "metavar": "INT"},  # 0 stands for None
    float: {"parser": parsing.number, "metavar": "FLOAT"},
    float | None: {"parser": parsing.number, "metavar": "FLOAT"},
    Range | None: {"parser": parsing.interval, "metavar": "LEAST:LARGEST"},
}
"""How the values of a type are written, by its type."""


@dataclass(frozen=True)
class Fields:
    """Marks a parameter of a command that stands for the fields of a dataclass.

    Attributes:
        of: The dataclass.
        only: The fields that become options; none for all.
        texts: For fields whose text has a form of its own, arguments of ``typer.Option``.
        panel: The heading of the options in the help.
    """

    of: type
    only: Sequence[str] = ()
    texts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    panel: str | None = None


@dataclass(frozen=True)
class _Option:
    """An option, and where its value goes."""

    parameter: str
    field: str
    declared: inspect.Parameter

    def value(self, given: Any) -> Any:
        """What the dataclass takes in place of what typer gives."""
        optional = self.declared.annotation.__origin__ == int | None
        return None if optional and given == 0 else given


def with_generated_options(command: Callable[..., None]) -> Callable[..., None]:
    """Replace the parameters of a command that are marked with :class:`Fields` by options.

    The new command makes the dataclasses, whose errors come before anything else is done, and
    calls the old one. A parameter of type :data:`Values` gets the values themselves.

    Args:
        command: The function.

    Returns:
        The function for ``typer.Typer.command``.
    """
    hints = get_type_hints(command, include_extras=True)
    plain, options = [], []
    for name, parameter in inspect.signature(command).parameters.items():
        if (mark := _mark(hints[name])) is None:
            plain.append(parameter.replace(annotation=hints[name], kind=parameter.KEYWORD_ONLY))
        else:
            options += [_option(name, mark, each) for each in _optional_fields(mark)]
    makers: dict[str, Any] = {
        name: get_args(hint)[0] for name, hint in hints.items() if _mark(hint) is not None
    }

    def generated(**given: Any) -> None:
        values: dict[str, Values] = {name: {} for name in makers}
        for option in options:
            values[option.parameter][option.field] = option.value(given.pop(option.declared.name))
        made = {
            name: values[name] if maker == Values else maker(**values[name])
            for name, maker in makers.items()
        }
        command(**given, **made)

    parameters = [*plain, *(option.declared for option in options)]
    vars(generated)["__signature__"] = inspect.Signature(parameters)
    generated.__annotations__ = {each.name: each.annotation for each in parameters}
    generated.__name__, generated.__doc__ = command.__name__, command.__doc__
    return generated


def _mark(hint: Any) -> Fields | None:
    marks = (each for each in getattr(hint, "__metadata__", ()) if isinstance(each, Fields))
    return next(marks, None)


def _optional_fields(mark: Fields) -> Iterator[tuple[DataclassField[Any], Any]]:
    """The fields that become options, with their types."""
    types = get_type_hints(mark.of)
    for each in fields(mark.of):
        wanted = (
            each.name in mark.only if mark.only else each.metadata.get("option", "") is not None
        )
        written = each.name in mark.texts or not is_dataclass(_unwrapped(types[each.name]))
        if wanted and written:
            yield each, types[each.name]


def _unwrapped(kind: Any) -> Any:
    """The type without `| None`."""
    parts = [part for part in get_args(kind) if part is not type(None)]
    return parts[0] if len(parts) == 1 and get_origin(kind) is not tuple else kind


def _option(parameter: str, mark: Fields, given: tuple[DataclassField[Any], Any]) -> _Option:
    each, kind = given
    name = each.metadata.get("option") or f"--{each.name.replace('_', '-')}"
    text = dict(mark.texts.get(each.name) or TEXTS.get(kind, {}))
    default = each.default if each.default_factory is MISSING else each.default_factory()
    if choices := each.metadata.get("choices"):
        text = {"parser": parsing.one_of(choices), "metavar": "|".join(choices)}
    elif each.name in mark.texts or kind == Range | None:
        kind, default = Any, _written(default)  # Of a tuple, typer would make several values.
    elif kind == int | None:
        default = default or 0
    help = each.metadata.get("help") or attribute_help(mark.of)[each.name]
    declared = inspect.Parameter(
        f"{parameter}_{each.name}",
        inspect.Parameter.KEYWORD_ONLY,
        default=inspect.Parameter.empty if default is MISSING else default,
        annotation=Annotated[
            kind, typer.Option(name, help=help, rich_help_panel=mark.panel, **text)
        ],
    )
    return _Option(parameter, each.name, declared)


def _written(value: Any) -> Any:
    """Numbers as a user writes them."""
    return ",".join(f"{each:g}" for each in value) if isinstance(value, tuple) else value


def attribute_help(of: type) -> Mapping[str, str]:
    """The entries under "Attributes:" in the docstring of a class, as plain sentences.

    Args:
        of: The class.

    Examples:
        >>> from keras_structsparse.training.recipes import Recipe
        >>> attribute_help(Recipe)["epochs"]
        'Number of epochs.'
    """
    section = re.search(r"(?m)^Attributes:\n((?:    .*\n?)+)", inspect.getdoc(of) or "")
    entries = re.findall(r"(?m)^    (\w+): (.*(?:\n {5,}\S.*)*)", section[1] if section else "")
    return {name: _plain(text) for name, text in entries}


def _plain(text: str) -> str:
    """Without line breaks and the signs of reStructuredText."""
    return re.sub(r":\w+:`~?([^`]*)`|``([^`]*)``", r"\1\2", " ".join(text.split()))
