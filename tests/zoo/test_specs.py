"""Base architectures as texts: what they mean, and what is no base."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_structsparse import models
from keras_structsparse.models.base_architecture import Base
from keras_structsparse.models.base_networks import cifar_resnet
from keras_structsparse.models.base_spec import is_spec, parse, strides, text_of

RUNS = st.lists(
    st.tuples(st.integers(1, 512), st.integers(1, 11), st.integers(1, 5)), min_size=1, max_size=5
)


@given(RUNS, st.sampled_from(["", " "]), st.sampled_from("x×"))
def test_a_text_gives_its_layers(runs: list[tuple[int, int, int]], space: str, times: str) -> None:
    text = f"{space},{space}".join(f"({w},{space}{s}){space}{times}{space}{n}" for w, s, n in runs)
    expected = tuple((w, s) for w, s, n in runs for _ in range(n))
    assert parse(text).layers == expected
    assert parse(text_of(parse(text))).layers == expected
    assert is_spec(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("(64,5)x18", Base(((64, 5),) * 18, (7, 13))),
        ("(16,3)x7,(32,3)x6,(64,3)x6", cifar_resnet(20)),
        ("(8,3)", Base(((8, 3),))),
        ("(8,3)x2", Base(((8, 3),) * 2, (1,))),
        ("(8,7,2),(8,3)x2,(16,3,2)x2", Base(((8, 7), *((8, 3),) * 2, *((16, 3),) * 2), (0, 3))),
        ("(8,3,1),(16,3)", Base(((8, 3), (16, 3)), (1,))),
        ("(8,3) plain", Base(((8, 3),), residual=False)),
        ("(8,3) residual pool", Base(((8, 3),), pooled=True)),
        ("(8,3) norm=before", Base(((8, 3),), normalization="before")),
        ("(8,3) norm=none plain", Base(((8, 3),), residual=False, normalization="none")),
        ("(8,3) init=he_normal", Base(((8, 3),), initializer="he_normal")),
    ],
)
def test_texts_and_bases(text: str, expected: Base) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        *("", "(64)", "(64,5", "64,5", "(64,5)x", "(64,5)(64,5)", "(64,5),", "(a,5)", "(64,5)x2x3"),
        *("(64,5,3)", "(0,5)", "(64,0)", "(64,5)x0", "(-1,5)", "(64,5.5)"),
    ],
)
def test_what_is_no_base_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"model: expected .* Received: "):
        parse(text)


@pytest.mark.parametrize("word", ["palin", "norm=behind", "init=torch", "pool=2"])
def test_unknown_words_are_refused(word: str) -> None:
    with pytest.raises(ValueError, match=f"model: expected a word of plain, .*'{word}'"):
        parse(f"(64,5)x2 {word}")


@pytest.mark.parametrize(("count", "expected"), [(1, ()), (3, (1,)), (7, (3, 5)), (19, (7, 13))])
def test_strides_of_square_bounds_start_pairs(count: int, expected: tuple[int, ...]) -> None:
    assert strides([(16, 5)] * count) == expected


@pytest.mark.parametrize("side", [28, 32])
@pytest.mark.parametrize("name", ["(64,5)x18", "(4,5)x18 plain", "cifar10-square-residual"])
def test_square_bases_take_small_images(name: str, side: int) -> None:
    model = models.build(name, (side, side, 1))
    assert model.get_layer("relu18").output.shape[1:3] == (side // 4, side // 4)


@pytest.mark.parametrize(
    ("name", "options"),
    [("digits-plain", {}), ("(8,3)x2", {"input_shape": (8, 8, 1), "classes": 3})],
)
def test_find_knows_names_and_texts(name: str, options: dict[str, Any]) -> None:
    entry = models.find(name)
    model = models.build(name, **options)
    assert model.input_shape[1:] == options.get("input_shape", entry.input_shape)
    assert model.output_shape[1:] == (options.get("classes", entry.classes),)
