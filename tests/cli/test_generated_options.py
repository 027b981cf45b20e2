"""Options that are the fields of dataclasses."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, make_dataclass
from typing import Annotated, Any

import pytest
import typer
from typer.testing import CliRunner, Result

from keras_structsparse._validation import WEIGHTS
from keras_structsparse.cli import errors, export
from keras_structsparse.cli.generated_options import Fields, attribute_help, with_generated_options
from keras_structsparse.errors import ModelError
from keras_structsparse.export.formats import EXPORTERS
from keras_structsparse.regularizers.shares import SHARES
from keras_structsparse.sweeps.settings import Search, Settings
from keras_structsparse.training.penalty_config import PenaltyConfig
from keras_structsparse.training.recipes import Recipe


@dataclass(frozen=True)
class Cooking:
    """How to cook.

    Attributes:
        minutes: How long, with ``0`` for
            raw (see :class:`Cooking`).
        heat: How hot.
        lid: Whether to cover it.
        spice: What to add.
        portions: One number for each guest.
        rest: Minutes to rest; None for none.
        chef: Who cooks.
    """

    minutes: int
    heat: float = 0.5
    lid: bool = False
    spice: str = field(default="salt", metadata={"option": "--add", "choices": ("salt", "sage")})
    portions: tuple[float, ...] = (1.0, 2.0)
    rest: int | None = None
    chef: str = field(default="me", metadata={"option": None})

    def __post_init__(self) -> None:
        if self.heat > 1:
            raise ModelError(f"heat: expected at most 1. Received: {self.heat}")


def cooked(of: type, *words: str) -> tuple[Result, list[Any]]:
    """Run a command whose options are those of a dataclass."""
    seen: list[Any] = []
    texts = {
        "portions": {"parser": lambda text: tuple(map(float, text.split(","))), "metavar": "N"}
    }

    def cook(dish: Any, out: str = "plate") -> None:
        """Cook."""
        seen.append((dish, out))

    cook.__annotations__ = {"dish": Annotated[of, Fields(of, texts=texts)], "out": str}
    kitchen = typer.Typer(cls=errors.Commands)
    kitchen.callback()(lambda: None)
    kitchen.command()(with_generated_options(cook))
    result = CliRunner(env={"COLUMNS": "200"}).invoke(kitchen, ["cook", *words])
    return result, seen


def test_options_are_the_fields_of_a_dataclass() -> None:
    result, seen = cooked(Cooking, "--minutes", "3")
    assert result.exit_code == 0, (result.output, result.exception)
    assert seen == [(Cooking(3), "plate")]
    words = ("--heat", "0.7", "--lid", "--add", "sage", "--portions", "3,4", "--rest", "5")
    _, seen = cooked(Cooking, "--minutes", "0", *words, "--out", "bowl")
    assert seen == [(Cooking(0, 0.7, True, "sage", (3.0, 4.0), 5), "bowl")]
    said = " ".join(cooked(Cooking, "--help")[0].output.replace("│", " ").split())
    for part in ("How long, with 0 for raw (see Cooking).", "[default: 1,2]", "salt|sage"):
        assert part in said
    assert "--chef" not in said


def test_a_new_field_is_a_new_option() -> None:
    """The control: without the field there is no such option."""
    wider = make_dataclass("Wider", [("sauce", float, 1.5)], bases=(Cooking,), frozen=True)
    wider.__doc__ = f"{Cooking.__doc__}    sauce: How much sauce."
    result, seen = cooked(wider, "--minutes", "3", "--sauce", "2")
    assert result.exit_code == 0, (result.output, result.exception)
    assert seen[0][0].sauce == 2.0
    said = " ".join(cooked(wider, "--help")[0].output.split())
    assert "--sauce FLOAT How much sauce. [default: 1.5]" in said.replace("│ ", "")
    result, seen = cooked(Cooking, "--minutes", "3", "--sauce", "2")
    assert result.exit_code == 2
    assert "--sauce" in result.stderr
    assert seen == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "--minutes"),
        (("--minutes", "many"), "expected a whole number. Received: 'many'"),
        (("--minutes", "1", "--add", "sand"), "expected one of salt, sage. Received: 'sand'"),
        (("--minutes", "1", "--heat", "2"), "heat: expected at most 1. Received: 2.0"),
    ],
)
def test_bad_values_of_generated_options(words: tuple[str, ...], message: str) -> None:
    result, seen = cooked(Cooking, *words)
    assert (result.exit_code, result.stderr.count("\n"), seen) == (2, 1, [])
    assert message in result.stderr


@pytest.mark.parametrize("of", [PenaltyConfig, Recipe, Search, Settings])
def test_every_option_has_a_help(of: type) -> None:
    assert set(attribute_help(of)) == {each.name for each in fields(of)}


def test_names_of_arguments_have_an_implementation() -> None:
    assert tuple(SHARES) == WEIGHTS
    assert set(export.ENDINGS) == {*EXPORTERS}
