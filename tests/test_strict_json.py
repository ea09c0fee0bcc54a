"""The reader of JSON: what it refuses, and that it always refuses with a ValueError."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmbatch.strict_json import MOST_LEVELS, check_numbers, loads, whole, whole_texts

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(VALUES)
def test_json_is_read_as_python_reads_it(value: Any) -> None:
    """JSON without odd numbers gives the same value as json.loads."""
    text = json.dumps(value)
    assert loads(text, unique_keys=True) == loads(text.encode()) == value


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("NaN", "no number NaN"),
        ('{"a": [-Infinity]}', "no number -Infinity"),
        ("1e400", "1e400 is too large"),
        ("[1e1818181818518181]", "is too large"),
        ("-1e309", "is too large"),
        ("9" * 309, r"9999\.\.\. is too large"),
        ("9" * 5000, "is too large"),
        ("[" * 100_000, "nested more than 200"),
        ('{"a":' * (MOST_LEVELS + 1) + "1" + "}" * (MOST_LEVELS + 1), "nested more than 200"),
        ("{", "Expecting property name"),
        ("\ufeff{}", "BOM"),
    ],
)
def test_what_other_programs_could_not_read_is_refused(text: str, told: str) -> None:
    """NaN, infinite numbers, numbers that are infinite as a float, and endless nesting are a ValueError."""
    with pytest.raises(ValueError, match=told):
        loads(text)


def test_the_limits_are_read() -> None:
    """The largest float, the largest whole number and the deepest nesting are read."""
    assert loads("1.7976931348623157e308") == 1.7976931348623157e308
    assert loads(str(10**308)) == 10**308
    assert loads("[" * MOST_LEVELS + "]" * MOST_LEVELS)


@given(VALUES)
def test_the_numbers_of_another_parser_are_checked_as_loads_checks_them(value: Any) -> None:
    """check_numbers() accepts what loads() accepts, and refuses a number beyond a 64-bit float anywhere."""
    check_numbers(value)
    for number in (math.inf, -math.inf, 10**309):
        with pytest.raises(ValueError, match="is too large"):
            check_numbers({"a": [value, {"b": number}]})


def test_a_key_twice_is_refused_on_request() -> None:
    """With `unique_keys` a repeated key is a ValueError that names the key; else the last value counts."""
    text = '{"a": {"b": 1, "c": 2, "b": 3}}'
    assert loads(text) == {"a": {"b": 3, "c": 2}}
    with pytest.raises(ValueError, match='the key "b" appears twice'):
        loads(text, unique_keys=True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a", "a"),
        ("\xe9\U0001f431", "\xe9\U0001f431"),
        ("\ud83d\udc31", "\U0001f431"),
        ("a\ud83d b", "a\ufffd b"),
    ],
)
def test_texts_become_whole(text: str, expected: str) -> None:
    """Two surrogates become one character, and a single one becomes U+FFFD."""
    assert whole(text) == expected
    assert whole_texts({text: [text, 1]}) == {expected: [expected, 1]}
