"""Names in Markdown are printed as they are, in one cell of a table."""

from __future__ import annotations

import json
import re
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from keras_structsparse.export.markdown import escaped, fenced
from keras_structsparse.models.card import Card

CARD = Path(__file__).parents[1] / "data_files" / "card_of_version_0_1.json"


@given(st.text())
def test_no_sign_of_markdown_is_left_bare(text: str) -> None:
    line = escaped(text)
    assert len(line.splitlines()) <= 1
    bare = re.sub(r"\\[\\`*\[\]<|$]", "", line)
    assert not set(bare) & set("`*[]<|$\\")
    assert re.sub(r"\\(.)", r"\1", line) == " ".join(text.split())


@given(st.text(alphabet="`a\n"))
def test_a_block_of_code_holds_everything(text: str) -> None:
    fence, inside, end = fenced(text)
    assert fence == end
    assert fence not in inside
    assert inside == text


def test_names_stay_in_their_cell_of_a_card() -> None:
    record = json.loads(CARD.read_text())
    name = "a|b\n| alpha | 7 |\n<script>"
    lines = Card.from_json(json.dumps({**record, "base": name})).to_markdown().splitlines()
    (row,) = [line for line in lines if line.startswith("| base network")]
    assert row == r"| base network | a\|b \| alpha \| 7 \| \<script> |"
    plain = Card.from_json(json.dumps(record)).to_markdown().splitlines()
    assert len(lines) == len(plain), "the control"
