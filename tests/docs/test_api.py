"""docs/api.md has every public name and no other, and the pages use public names alone."""

import ast
import inspect
import re
from collections import Counter
from collections.abc import Callable
from typing import get_args

import pytest
from documents import ROOT, examples, page, section, table

import vlmbatch
from vlmbatch import errors, events

PAGE = page("docs/api.md")
PAGES = ("README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")))


def headings(heading: str) -> list[str]:
    """The names with a heading of their own in this part of the page."""
    return re.findall(r"^### `(\w+)`$", section(PAGE, heading), re.MULTILINE)


HIDDEN = {"AnswerClassError"}  # runs and sessions raise the exception that it holds
ERRORS = {name for name, each in inspect.getmembers(errors, inspect.isclass) if issubclass(each, Exception)}
PUBLIC = {
    "vlmbatch": {*vlmbatch.__all__, "events", "errors", "__version__"},
    "vlmbatch.events": {*headings("## Events")},
    "vlmbatch.errors": {row[0] for row in table(section(PAGE, "## Errors"))},
}


def test_each_public_name_is_on_the_page() -> None:
    """The page has each name of the package once, and no name that the package does not have."""
    own = [*headings("## Functions"), *headings("## Classes")]
    elsewhere = PUBLIC["vlmbatch.events"] | PUBLIC["vlmbatch.errors"]
    assert sorted(own) == sorted({*vlmbatch.__all__} - elsewhere)


def test_each_event_is_on_the_page() -> None:
    """The page has each event that an observer receives, and the type of them all."""
    named = [each.__name__ for each in get_args(events.Event)]
    assert sorted(headings("## Events")) == sorted([*named, "Event"])


def test_each_error_is_on_the_page() -> None:
    """The page has each class of errors in vlmbatch.errors that a user can catch, and no other."""
    rows = [row[0] for row in table(section(PAGE, "## Errors"))]
    assert sorted(rows) == sorted(ERRORS - HIDDEN)


def test_each_heading_has_an_anchor_of_its_own() -> None:
    """No two headings of the page have the same anchor, so that each link leads to its class."""
    anchors = Counter(
        re.sub(r"[^\w -]", "", title.lower()) for title in re.findall(r"^#+ (.*)$", PAGE, re.MULTILINE)
    )
    assert [anchor for anchor, times in anchors.items() if times > 1] == []


@pytest.mark.parametrize(
    "function",
    [vlmbatch.run_batch, vlmbatch.open_session, vlmbatch.Session.question, vlmbatch.SyncSession.question],
)
def test_help_shows_types_by_their_names(function: Callable[..., object]) -> None:
    """The signature that help() and `?` show names each type as the page does, and is no dump of objects."""
    shown = str(inspect.signature(function))
    assert "Unpack[" in shown
    assert not re.search(r"[<~>](?<!->)|vlmbatch\.", shown)


@pytest.mark.parametrize("name", PAGES)
def test_the_examples_import_public_names_alone(name: str) -> None:
    """Each name that an example of the pages imports from vlmbatch is on the page, with that module."""
    for block in examples(name):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Import):
                assert not any(each.name.startswith("vlmbatch.") for each in node.names), block
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "vlmbatch":
                assert {each.name for each in node.names} <= PUBLIC.get(node.module or "", set()), block
