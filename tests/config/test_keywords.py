"""The keywords of the Python functions agree with the options, and wrong ones are refused in a few lines."""

import os
import traceback
from collections.abc import Callable, Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest

from vlmbatch import open_session, run_batch
from vlmbatch.config import Option, options
from vlmbatch.config.keywords import (
    BatchKeywords,
    QuestionKeywords,
    RunKeywords,
    ServiceKeywords,
    SessionKeywords,
)
from vlmbatch.config.spec import parse_concurrency, parse_side, typed
from vlmbatch.errors import ConfigError

OPTIONS = {option.name: option for option in options()}
KEYWORDS = (QuestionKeywords, SessionKeywords, BatchKeywords, RunKeywords)
FILES = {"model"}
"""Options that take a path, too, although their value in the help is a name."""
OF_COMMANDS = {"batch", "priority"}
"""Options of enqueue and collect, which no function has."""


def members(kind: Any) -> frozenset[Any]:
    """The types in a union, and those of unions inside it; a single type is a union of one."""
    is_union = get_origin(kind) is Union or isinstance(kind, UnionType)
    return frozenset().union(*map(members, get_args(kind))) if is_union else frozenset((kind,))


def taken(option: Option) -> frozenset[Any]:
    """The types of the values that RunConfig takes for this option."""
    metavar = option.spec.metavar or ""
    kinds = {Sequence[str], str} if option.type == tuple[str, ...] else set(members(option.type))
    if option.spec.parse in (parse_side, parse_concurrency):
        kinds.add(Literal["auto"])
    elif option.spec.parse is not None:
        kinds.add(str)
    if "FILE" in metavar or metavar.startswith("DIR") or option.name in FILES:
        kinds.add(os.PathLike[str])
    if "JSON" in metavar:
        kinds.add(Mapping[str, Any])
    if option.spec.choices:
        kinds = {Literal[option.spec.choices]}
    return frozenset(kinds)


def test_each_option_is_one_keyword() -> None:
    """The keywords of a run and of the service are the options, each once, and hold those of the others."""
    assert RunKeywords.__optional_keys__ | ServiceKeywords.__optional_keys__ | OF_COMMANDS == OPTIONS.keys()
    own = {option.name for option in OPTIONS.values() if option.group in ("service", "jobs")} - OF_COMMANDS
    shared = {"quiet", "log_json", "traces"}
    assert ServiceKeywords.__optional_keys__ - SessionKeywords.__optional_keys__ == own | shared
    assert own.isdisjoint(RunKeywords.__optional_keys__)
    assert not ServiceKeywords.__required_keys__
    assert not any(keywords.__required_keys__ for keywords in KEYWORDS)
    sizes = [len(keywords.__optional_keys__) for keywords in KEYWORDS]
    assert sizes == sorted(set(sizes))


@pytest.mark.parametrize("name", sorted(OPTIONS.keys() - {"schema", "max_failures"} - OF_COMMANDS))
def test_each_keyword_has_the_types_of_its_option(name: str) -> None:
    """A keyword has exactly the types that its option takes, as its field and its parser say."""
    assert members((get_type_hints(RunKeywords) | get_type_hints(ServiceKeywords))[name]) == taken(
        OPTIONS[name]
    )


SAMPLES: Mapping[Any, object] = {
    int: 64,
    float: 1.5,
    bool: True,
    str: "64",
    NoneType: None,
    Sequence[str]: ("64",),
    Literal["auto"]: "auto",
    os.PathLike[str]: os.curdir,
    Mapping[str, Any]: {"top_k": 1},
}
SPECIAL: Mapping[str, str] = {
    "until": "6:30",
    "accept": "length",
    "fallback_on": "rejected",
    "extra_body": "{}",
    "mm_processor_kwargs": "{}",
}
"""The texts of options whose parser does not take a number."""


@pytest.mark.parametrize("name", sorted(BatchKeywords.__optional_keys__))
def test_a_value_of_each_type_is_taken(name: str) -> None:
    """Each type of a keyword is taken when the program runs, and so is the default."""
    option = OPTIONS[name]
    for kind in taken(option):
        samples = get_args(kind) if get_origin(kind) is Literal else (SAMPLES[kind],)
        for sample in samples:
            value = SPECIAL.get(name, sample) if kind is str else sample
            typed(name, option.type, option.spec, value)
    assert typed(name, option.type, option.spec, option.default) == option.default


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: run_batch("p", promt="x"), "option 'promt' is not known; did you mean prompt?"),  # type: ignore[call-arg]
        (lambda: run_batch("p", dry_run=True), "dry_run is an option of the command"),  # type: ignore[call-arg]
        (lambda: run_batch("p", max_tokens=None), "--max-tokens takes a whole number, not None"),  # type: ignore[arg-type]
        (lambda: run_batch("p", output=None), "--output takes a text, not None"),  # type: ignore[arg-type]
        (lambda: run_batch("p", timeout="x"), "--timeout: 'x' is not a duration"),
        (lambda: open_session(output="x"), "output is an option of a run or of the service, not"),  # type: ignore[call-arg]
        (lambda: open_session(quiet=True), "quiet is an option of a run or of the service, not"),  # type: ignore[call-arg]
        (lambda: open_session(modle="x"), "option 'modle' is not known; did you mean model?"),  # type: ignore[call-arg]
    ],
)
def test_a_wrong_option_is_refused_where_it_was_typed(call: Callable[[], object], told: str) -> None:
    """The error says what to type, and its traceback is the user's line and one of vlmbatch."""
    with pytest.raises(ConfigError) as raised:
        call()
    assert str(raised.value).startswith(told)
    here, *frames = traceback.extract_tb(raised.value.__traceback__)[1:]
    assert here.filename == __file__
    assert [frame.name for frame in frames] in (["run_batch"], ["open_session"])
    assert raised.value.__suppress_context__
