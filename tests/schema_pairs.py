"""JSON Schemas with answers to them: hostile pairs, and Hypothesis strategies."""

import json
from typing import Any

from hypothesis import strategies as st


def nested(levels: int, innermost: Any = 1) -> Any:
    """Objects inside each other, each with one member `x`."""
    for _ in range(levels):
        innermost = {"x": innermost}
    return innermost


def _chain(length: int, step: Any, end: Any) -> dict[str, Any]:
    """A schema of definitions, each of which refers to the next one within `step(reference)`."""
    defs = {f"a{n}": step({"$ref": f"#/$defs/a{n + 1}"}) for n in range(length)}
    return {"$ref": "#/$defs/a0", "$defs": {**defs, f"a{length}": end}}


BACK = {"properties": {"x": {"$ref": "#/$defs/a0"}}}
SLOW: dict[str, tuple[dict[str, Any], str]] = {
    "a pattern with 100,000 repetitions": ({"pattern": "a{100000}"}, json.dumps("a" * 200_000)),
    "a look-ahead at each character": ({"pattern": "^(?:(?=.*b)a)*$"}, json.dumps("a" * 200_000 + "b")),
    "large numbers that differ": ({"uniqueItems": True}, json.dumps([10**300 + n for n in range(3_000)])),
    "tiny numbers in a list of choices": (
        {"items": {"not": {"enum": [n + 0.5 for n in range(100)]}}},
        json.dumps([1e-300] * 90_000),
    ),
    "references that double 40 times": (
        _chain(40, lambda ref: {"anyOf": [ref, ref]}, {"type": "null"}),
        "1",
    ),
    "unevaluatedProperties at each of 190 levels": (
        _chain(20, lambda ref: {"allOf": [ref], "unevaluatedProperties": False}, BACK),
        json.dumps(nested(190)),
    ),
}
"""Checks that take minutes or for ever, if nothing ends them."""
DEEP = (
    _chain(1_000, lambda ref: {"not": ref, "unevaluatedProperties": True}, BACK),
    json.dumps(nested(190)),
)
"""A check that overflows the stack."""

NUMBERS = st.one_of(
    st.integers(-5, 5),
    st.sampled_from(
        (2**53, 2**63, 2**64, -(2**64), 10**30, 10**300, 0.1, 1e-7, 1e-300, 5e-324, 1.7e308, 0.0)
    ),
    st.floats(allow_nan=False, allow_infinity=False),
)
TEXTS = st.one_of(
    st.text(st.sampled_from("ab{}[]\"\\ \n`'é漢\U0001f431"), max_size=12),
    st.sampled_from(("", "a" * 2_000, "a" * 2_000 + "!", " " * 2_500, "[" * 500, "x", "y")),
)
NAMES = st.sampled_from(("x", "y", "", "$ref", "é", "a.b"))
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=6), st.dictionaries(NAMES, inner, max_size=4)),
    max_leaves=20,
)
PATTERNS = st.sampled_from(
    (
        "^(a+)+$",
        "(a|aa)+$",
        "^(?=a)(a+)+$",
        r"^(.*)\1$",
        r"\s*\s*x",
        "a{500}",
        "^x",
        "(",
        r"^\w{1,80}$",
        ".*.*!",
    )
)
REFERENCES = st.sampled_from(("#", "#/$defs/a", "#/$defs/b", "#n", "#/properties/x", "#/none"))
TYPES = st.sampled_from(("object", "array", "string", "number", "integer", "boolean", "null"))
SIZES = st.integers(0, 3)


def _keywords(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Schemas with up to four keywords that contain the schemas of `inner`."""
    lists, named = st.lists(inner, min_size=1, max_size=3), st.dictionaries(NAMES, inner, max_size=3)
    one = (
        *(st.tuples(st.just(name), lists) for name in ("allOf", "anyOf", "oneOf", "prefixItems")),
        *(
            st.tuples(st.just(name), inner)
            for name in ("not", "if", "then", "else", "items", "contains", "additionalProperties")
        ),
        *(st.tuples(st.just(name), inner) for name in ("unevaluatedProperties", "unevaluatedItems")),
        *(st.tuples(st.just(name), named) for name in ("properties", "dependentSchemas")),
        st.tuples(st.just("patternProperties"), st.dictionaries(PATTERNS, inner, max_size=2)),
    )
    return st.lists(st.one_of(one), min_size=1, max_size=4).map(dict)


_LEAVES = st.one_of(
    st.booleans(),
    st.builds(lambda name: {"type": name}, TYPES),
    st.builds(lambda pattern: {"pattern": pattern}, PATTERNS),
    st.builds(lambda ref: {"$ref": ref}, REFERENCES),
    st.builds(lambda value: {"const": value}, VALUES),
    st.builds(lambda values: {"enum": values}, st.lists(VALUES, max_size=4)),
    st.builds(
        lambda name, value: {name: value}, st.sampled_from(("multipleOf", "minimum", "maximum")), NUMBERS
    ),
    st.builds(lambda name, n: {name: n}, st.sampled_from(("minLength", "maxItems", "minProperties")), SIZES),
    st.builds(lambda names: {"required": names}, st.lists(NAMES, max_size=3, unique=True)),
    st.just({"uniqueItems": True}),
    st.just({"$dynamicRef": "#n"}),
)
_SCHEMAS = st.recursive(_LEAVES, _keywords, max_leaves=12)
SCHEMAS = st.builds(
    lambda schema, a, b: {
        **(schema if isinstance(schema, dict) else {}),
        "$defs": {"a": a, "b": b, "c": {"$dynamicAnchor": "n", "type": "object"}},
    },
    _SCHEMAS,
    _SCHEMAS,
    _SCHEMAS,
)
_FORMS = st.sampled_from(("#", "```json\n#\n```", "Here: # and so on", "# #", "#}", "[#", '{"x": #}', "{#"))
ANSWERS = st.one_of(
    st.builds(lambda form, value: form.replace("#", json.dumps(value)), _FORMS, VALUES),
    st.builds(lambda value, end: json.dumps(value)[:end], VALUES, st.integers(0, 200)),
    TEXTS,
)
