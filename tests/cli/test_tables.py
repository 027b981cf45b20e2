"""What commands print: texts are as they are."""

from __future__ import annotations

import pytest

from keras_structsparse.cli.tables import before_and_after_table, console, plan_table
from keras_structsparse.surgery.plans import Plan
from keras_structsparse.training.shrink.measured import Row

NAMES = ("[bold]x[/bold]", "[/]", "[red", ":smile:", "a|b", "$x$", "<i>")


@pytest.mark.parametrize("name", NAMES)
def test_names_in_tables_are_printed_as_they_are(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = console()
    out.print(before_and_after_table([Row(name, "1", "2")]))
    out.print(plan_table(Plan({name: (3, 1)}), name))
    out.print(name)
    assert capsys.readouterr().out.count(name) == 4
