"""Reads strict JSON. Text that other programs cannot read is refused with ValueError, the only error."""

import json
import math
from collections.abc import Iterable
from typing import Any, NoReturn

MOST_LEVELS = 200
"""Objects and lists may be nested this deep; jq 1.6 reads no more than 256 levels."""
_LARGEST = 10**308
"""Larger whole numbers are infinite for a program that reads all numbers as 64-bit floats."""


def loads(text: str | bytes, *, unique_keys: bool = False) -> Any:
    """The value of a JSON text. With `unique_keys` no object may have the same key twice.

    Raises:
        ValueError: the text is not JSON; it has NaN, Infinity or a number beyond a 64-bit float; it is
            nested more than 200 levels deep; it has a key twice.
    """
    pairs = _unique if unique_keys else None
    try:
        value = json.loads(
            text, parse_constant=_refuse, parse_float=_float, parse_int=_int, object_pairs_hook=pairs
        )
    except RecursionError:
        raise _too_deep() from None
    _check_levels(value)
    return value


def check_numbers(value: Any) -> None:
    """Check the numbers of a JSON value that another parser has read.

    Raises:
        ValueError: a number is beyond a 64-bit float.
    """
    level = [value]
    while level:
        for each in level:
            if _is_too_large(each):
                raise ValueError(f"the number {_short(str(each))} is too large")
        level = [child for each in _nested(level) for child in _children(each)]


def _any_int(digits: str) -> float:
    return int(digits) if len(digits) <= 310 else math.inf  # int() refuses more than 4,300 digits


LENIENT = json.JSONDecoder(parse_int=_any_int)
"""Reads the replies of servers, also those with NaN, Infinity and endless numbers."""


def whole(text: str) -> str:
    """The text with pairs of surrogates joined, and U+FFFD for each one that is alone."""
    if text.isascii():
        return text
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def whole_texts(value: Any) -> Any:
    """The JSON value with `whole` applied to all texts in it."""
    return json.loads(whole(json.dumps(value, ensure_ascii=False)))


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"JSON has no number {name}")


def _float(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise ValueError(f"the number {_short(digits)} is too large")
    return value


def _int(digits: str) -> int:
    if len(digits) > 300 and (len(digits) > 310 or abs(int(digits)) > _LARGEST):
        raise ValueError(f"the number {_short(digits)} is too large")
    return int(digits)


def _is_too_large(value: object) -> bool:
    if isinstance(value, float):
        return math.isinf(value)
    return isinstance(value, int) and abs(value) > _LARGEST


def _short(digits: str) -> str:
    return digits if len(digits) <= 20 else f"{digits[:17]}..."


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        seen = set[str]()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {json.dumps(twice)} appears twice in one object; keep one")
    return value


def _check_levels(value: Any) -> None:
    level = _nested([value])
    for _ in range(MOST_LEVELS):
        if not level:
            return
        level = _nested(child for each in level for child in _children(each))
    if level:
        raise _too_deep()


def _nested(values: Iterable[Any]) -> list[Any]:
    """Those of the values that are an object or a list."""
    return [value for value in values if isinstance(value, (dict, list))]


def _children(container: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return container.values() if isinstance(container, dict) else container


def _too_deep() -> ValueError:
    return ValueError(f"it is nested more than {MOST_LEVELS} levels deep")
