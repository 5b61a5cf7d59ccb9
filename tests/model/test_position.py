"""Positions: one form, one order."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.model.position import BEGINNING, InvalidPosition, Position

positions = st.builds(Position, st.integers(0, 10**16 - 1), st.integers(0, 10**12 - 1))


@given(positions)
def test_what_is_written_is_read(position: Position) -> None:
    assert Position.parse(str(position)) == position


@given(st.lists(positions, min_size=2, max_size=2))
def test_they_order_by_time_and_then_by_number(two: list[Position]) -> None:
    first, second = sorted(two)
    assert first >= BEGINNING
    assert (first.ms, first.n) <= (second.ms, second.n)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-",
        "0",
        "1-",
        "-1",
        "1-1-1",
        "1--1",
        " 1-1",
        "1-1 ",
        "1-1\n",
        "+1-1",
        "1-+1",
        "1_0-1",
        "0x1-1",
        "1.0-1",
        "$",
        "*",
        "1-1\x00",
        "１-１",
        "¹-¹",
        "1–1",
        "٣-٣",
        "1" * 17 + "-1",
        "1-" + "1" * 13,
        "9" * 5000 + "-1",
    ],
)
def test_pitfall_13_nothing_else_is_a_position(text: str) -> None:
    with pytest.raises(InvalidPosition):
        Position.parse(text)


@given(st.text("0123456789-+_. x\n\x00\uff11\u0663\u00b9\u2013", max_size=40))
def test_pitfall_13_whatever_is_read_is_written_the_same(text: str) -> None:
    try:
        position = Position.parse(text)
    except InvalidPosition:
        return
    ms, _, n = text.partition("-")
    assert (position.ms, position.n) == (int(ms), int(n))
    assert text.isascii()
