"""Plain data: tuples and lists into each other, and pydantic's errors in words of one line each."""

from __future__ import annotations

from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BeforeValidator, TypeAdapter, ValidationError, create_model

from fanin.errors import RecipeError
from fanin.validation import STRICT, as_lists, as_tuples, problems

leaves = st.integers() | st.text(max_size=3) | st.none()
nested = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3), max_leaves=8)


@given(nested)
def test_tuples_and_lists_come_back(value):
    assert as_lists(as_tuples(value)) == value
    assert isinstance(hash(as_tuples(value)), int)


def test_what_is_no_list_stays():
    assert as_tuples({"a": [1]}) == {"a": [1]}
    assert as_tuples([1, [2, [3]], "ab"]) == (1, (2, (3,)), "ab")
    assert as_lists((1, (2,), [3])) == [1, [2], [3]]


def refuse(value):
    raise RecipeError("size.odd: expected an odd one\nit is even")


def told(data, **fields):
    adapter = TypeAdapter(create_model("Thing", __config__=STRICT, **fields))
    with pytest.raises(ValidationError) as caught:
        adapter.validate_python(data)
    return problems(caught.value, "f: ", ["size", "name"], of="a thing")


def test_problems_say_where_what_was_expected_and_what_was_given():
    assert told({"size": "1"}, size=(int, ...)) == ["f: size: expected a valid integer; got '1'"]
    assert told({}, size=(int, ...)) == ["f: size: required, and not given"]
    assert told({"size": 1, "nam": 2}, size=(int, ...)) == [
        "f: nam: unknown key; a thing takes size, name; did you mean 'name'?"
    ]
    assert told({"size": float("nan")}, size=(float, ...)) == ["f: size: expected a finite number; got nan"]


def test_a_recipes_own_words_are_kept_from_the_root():
    lines = told({"size": 2}, size=(Annotated[int, BeforeValidator(refuse)], ...))
    assert lines == ["f: size.odd: expected an odd one", "f: size: it is even"]


def test_of_very_many_problems_the_first_are_told():
    lines = told({"size": ["x"] * 25}, size=(list[int], ...))
    assert len(lines) == 21
    assert lines[19] == "f: size.19: expected a valid integer; got 'x'"
    assert lines[20] == "f: ...: and 5 more problems"
