"""msgspec reads the same outcome as json from the lines that vlmbatch writes."""

import json
import sys
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from selection import long
from written_results import ENDPOINT, RUN, failed

from vlmbatch.images import ImageFacts
from vlmbatch.records import Completion, Failure, Fallback, Result, Usage, to_line
from vlmbatch.writers import own_record
from vlmbatch.writers.line_parser import Outcome, outcome_of, parse
from vlmbatch.writers.own_record import decode, read_own

WHOLE_TEXT = st.text(
    st.characters(exclude_categories=("Cs",)) | st.sampled_from('\0\x1b\x7f\x85\u2028\U0001f600"\\/ab')
)
ANY_TEXT = WHOLE_TEXT | st.text(st.sampled_from("\ud800\udc00a\\"))
PLAIN_TEXT = st.text("abc /.:-0")
NUMBERS = st.integers(0, 10**18 - 1)
DATA = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**18), 10**18) | st.floats(-1e300, 1e300) | WHOLE_TEXT,
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(WHOLE_TEXT, inside, max_size=3),
    max_leaves=4,
)
TOKENS = st.lists(st.builds(dict, token=WHOLE_TEXT, logprob=st.floats(-9999, 0)), max_size=2)
LOGPROBS = st.builds(
    dict,
    mean=st.floats(-9999, 0),
    tokens=st.lists(
        st.builds(dict, token=WHOLE_TEXT, logprob=st.floats(-9999, 0), top=TOKENS)
        | st.builds(dict, token=WHOLE_TEXT, logprob=st.floats(-9999, 0)),
        max_size=2,
    ),
)


def line_of(image: str = "a.jpg", prompt: str = "default", text: str = "A cat.", **changes: Any) -> bytes:
    """The line of an answer with all its facts."""
    return to_line(_result(image, prompt, text, **changes).to_record())


def _result(
    image: str,
    prompt: str,
    text: str,
    data: object = None,
    logprobs: dict[str, object] | None = None,
    failure: Failure | None = None,
    pictures: int = 1,
    rest: dict[str, Any] | None = None,
    **facts: Any,
) -> Result:
    known: dict[str, Any] = {
        "sha256": "e3b0" * 16, "bytes": 2311040, "mtime": 1763800000.5, "width": 4000, "height": 3000,
        "sent_width": 1024, "sent_height": 768, "sent_bytes": 143210, "frames": 1,
    }  # fmt: skip
    found = ImageFacts(**known | facts)
    answer = Completion(
        text=text,
        model="llava:7b",
        finish_reason="stop",
        usage=Usage(input_tokens=7),
        data=data,
        logprobs=logprobs,
    )
    return Result(
        id=image,
        prompt=prompt,
        endpoint=ENDPOINT,
        run=RUN,
        started_at=datetime(2026, 11, 22, 10, tzinfo=UTC),
        duration_s=2.31,
        completion=answer if failure is None else None,
        failure=failure,
        image=found,
        more_images=(found,) * (pictures - 1),
        attempts=1,
        **rest or {},
    )


def lines(texts: st.SearchStrategy[str], data: st.SearchStrategy[object]) -> st.SearchStrategy[bytes]:
    """Lines of all kinds of results."""
    failures = st.builds(
        Failure,
        kind=st.sampled_from(["timeout", "bad_image"]),
        message=texts,
        retryable=st.booleans(),
        partial=st.none() | texts,
    )
    fallbacks = st.builds(
        Fallback,
        reason=st.just("unavailable"),
        kind=st.just("timeout"),
        message=texts,
        backend=texts,
        endpoint=texts,
        model=texts,
    )
    return st.builds(
        line_of,
        image=texts,
        prompt=texts,
        text=texts,
        data=data,
        logprobs=st.none() | LOGPROBS,
        failure=st.none() | failures,
        pictures=st.integers(1, 2),
        sha256=st.none() | st.just("e3b0" * 16),
        bytes=st.none() | NUMBERS,
        mtime=st.none() | st.floats(-1e11, 1e11) | st.integers(-(10**11), 10**11),
        width=NUMBERS,
        rest=st.fixed_dictionaries(
            {},
            optional={
                "warnings": st.lists(texts, max_size=3).map(tuple),
                "duplicate_of": st.none() | texts,
                "cached": st.booleans(),
                "cost": st.none() | st.floats(0, 1e9),
                "fallback": st.none() | fallbacks,
            },
        ),
    )


LINES = lines(ANY_TEXT, DATA)
ODD = [
    b"", b'"', b'\\"', b"\\", b"\\x", b"\\u12", b"\\u0041", b"\\ud800", b"\\ud83d\\ude00", b"/", b" ", b"\t",
    b",", b":", b"{", b"}", b"[", b"]", b"0", b"00", b"-", b"-0", b"-1", b".", b".5", b".0", b"e5", b"E-3",
    b"1e5", b"1e999", b"9" * 16, b"9" * 20, b"9" * 309, b"9" * 400, b"9" * 5000, b"null", b"true", b"NaN",
    b"-Infinity", b"\0", b"\x1f", b"\x7f", b"\x80", b"\xc3\xa9", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\n",
    b"\r\n", b"\x0c", b"[" * 250 + b"]" * 250, b'"id":"b.jpg",', b'"run":"other",',
    b'"duplicate_of":"b.jpg",',
    b'"new":1e999,',
]  # fmt: skip
ODD_VALUES = [
    b"1", b"1.0", b"-0", b"-0.0", b"1e5", b"1E+05", b"9007199254740993", b"-9007199254740993.0",
    b"4503599627370497.5", b"18446744073709551616", b"9" * 308, b"1" + b"0" * 308, b"1" + b"0" * 307 + b"1",
    b"9" * 309, b"9" * 400, b"1e308", b"1e309", b"1763800000.12345678901234567890", b"0.1e-400", b"null",
    b"true", b"NaN", b"Infinity", b"01", b"[]", b"{}", b'""', b'"a"', b'"\\u0061"', b'"ok"', b'"\\u006fk"',
    b'"error"',
    b'{"retryable":false,"kind":"x","message":"","partial":null}', b'{"a":[[[[[[1]]]]]]}',
    b"[" * 199 + b"]" * 199, b"[" * 200 + b"]" * 200, b"[" * 2000 + b"]" * 2000,
    b'{"a":1e999}', b'[{"a":-1e400}]',
]  # fmt: skip


def read_outcome(line: bytes) -> Outcome | None:
    return own_record.read_outcome(line, read_own(line))


def by_json(line: bytes) -> Outcome | None:
    record = parse(line)
    return None if record is None else outcome_of(record)


def agrees(line: bytes) -> bool:
    """Whether both read the same. Only json may refuse the size of a value that is not needed."""
    read, expected = read_outcome(line), by_json(line)
    return read == expected or (expected is None and read == _of_any_size(line))


def _of_any_size(line: bytes) -> Outcome | None:
    """The outcome by json without its limits of numbers and nesting."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(10_000)
    try:
        return outcome_of(json.loads(line, parse_int=lambda digits: int(digits) if len(digits) < 4000 else 0))
    except (ValueError, KeyError, TypeError):
        return None
    finally:
        sys.setrecursionlimit(limit)


FLAT_DATA = st.none() | st.integers() | st.lists(WHOLE_TEXT) | st.dictionaries(WHOLE_TEXT, st.booleans())


@given(lines(WHOLE_TEXT, FLAT_DATA))
def test_every_record_is_read_by_the_form(line: bytes) -> None:
    """The form reads every record that a run writes, with the same outcome as json.

    If this fails after a change of records, the form in own_record.py has to change, too.
    """
    assert decode(line)
    assert read_outcome(line) == by_json(line)


@given(LINES)
def test_a_record_with_any_text_and_data_has_the_outcome_of_json(line: bytes) -> None:
    """Single surrogates, and data that is nested deeply, give the same outcome by both."""
    assert agrees(line)


@settings(max_examples=200)
@given(line=LINES, odd=st.lists(st.sampled_from(ODD), min_size=1, max_size=4), data=st.data())
def test_the_form_never_disagrees_with_json(line: bytes, odd: list[bytes], data: st.DataObject) -> None:
    """After any insertion, deletion or replacement in a line, both read the same outcome or none."""
    for piece in odd:
        start = data.draw(st.integers(0, len(line)))
        line = line[:start] + piece + line[start + data.draw(st.sampled_from([0, 1, len(piece)])) :]
    assert agrees(line)


@settings(max_examples=200)
@given(line=LINES, data=st.data())
def test_the_form_reads_changed_keys_and_values_as_json_does(line: bytes, data: st.DataObject) -> None:
    """Both agree on swapped, missing and repeated keys, other values and other spacing, in any object."""
    text = _changed(json.loads(line), data)
    assert agrees(text), text


CHANGES = ("swap", "repeat", "value", "repeat with a value", "remove", "escape")


def _changed(value: object, data: st.DataObject) -> bytes:
    """The value as JSON with a few changes; the objects in it, too."""
    if not isinstance(value, dict):
        return json.dumps(value, ensure_ascii=data.draw(st.booleans())).encode("utf-8", "surrogatepass")
    pairs = [(json.dumps(key).encode(), _changed(inside, data)) for key, inside in value.items()]
    places = st.integers(0, max(0, len(pairs) - 1))
    for _ in range(data.draw(st.integers(0, 2)) if pairs else 0):
        one, other = data.draw(places), data.draw(places)
        match data.draw(
            st.sampled_from(["swap", "repeat", "value", "repeat with a value", "remove", "escape"])
        ):
            case "swap":
                pairs[one], pairs[other] = pairs[other], pairs[one]
            case "repeat":
                pairs.insert(other, pairs[one])
            case "value":
                pairs[one] = pairs[one][0], data.draw(st.sampled_from(ODD_VALUES))
            case "repeat with a value":
                pairs.insert(other, (pairs[one][0], data.draw(st.sampled_from(ODD_VALUES))))
            case "remove" if len(pairs) > 1:
                del pairs[min(one, len(pairs) - 1)]
                break
            case "escape":
                name = pairs[one][0]
                pairs[one] = b'"\\u%04x%b' % (name[1], name[2:]) if len(name) > 2 else name, pairs[one][1]
    comma, colon = data.draw(st.sampled_from([(b",", b":"), (b", ", b": "), (b"\t,\r", b" :")]))
    return b"{%b}" % comma.join(name + colon + inside for name, inside in pairs)


@pytest.mark.parametrize("length", [0, long(1)])
def test_no_single_change_makes_them_disagree(length: int) -> None:
    """Both read the same for each odd piece at each place of a line, inserted or in place of a byte."""
    line = line_of("a b.jpg", text='A "cat".\n', rest={"warnings": ("a warning", "another")})
    for place in range(len(line) + 1):
        for piece in ODD:
            changed = line[:place] + piece + line[place + length :]
            assert agrees(changed), changed


@pytest.mark.parametrize("value", ODD_VALUES)
def test_no_single_value_makes_them_disagree(value: bytes) -> None:
    """Both read the same for each odd value of each key, alone and before or behind the good one."""
    record = json.loads(line_of(data={"a": 1}, failure=None, pictures=2, rest={"cost": 0.5, "cached": True}))
    for place in (record, record["image"], record["usage"], record["images"][0], record["data"]):
        for key, good in list(place.items()):
            place[key] = "<value>"
            text = json.dumps(record).encode()
            place[key] = good
            name, known = json.dumps(key).encode(), json.dumps(good).encode()
            for new in (value, b"%b,%b:%b" % (value, name, known), b"%b,%b:%b" % (known, name, value)):
                changed = text.replace(b'"<value>"', new)
                assert agrees(changed), changed


@given(image=ANY_TEXT, prompt=PLAIN_TEXT)
def test_one_image_has_one_digest(image: str, prompt: str) -> None:
    """The same image and prompt have the same digest in every record, answered or failed."""
    read, other = (read_outcome(line_of(image, prompt, text)) for text in ("a", "b"))
    failure = read_outcome(to_line(failed(image, prompt=prompt).to_record()))
    assert read is not None
    assert other is not None
    assert failure is not None
    assert read[1] == other[1] == failure[1]
    assert read[-1] == other[-1] != failure[-1]
