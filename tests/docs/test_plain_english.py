"""The README and docs/ are plain English: short sentences, and a thing as the subject of each."""

import re
from collections.abc import Iterator

import pytest
from documents import ROOT, page

LONGEST = 30  # words in a sentence
NOT_PLAIN = re.compile(
    r"\b(who|whom|whoever|somebody|someone|nobody|anybody|anyone|everybody|everyone"
    r"|what is there|ones|the one|each one|that one|this one|another one|one that)\b",
    re.IGNORECASE,
)
DECISIONS = "docs/decisions.md"  # a log, with the words of its time
PAGES = sorted({"README.md", *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))} - {DECISIONS})


def prose(text: str) -> str:
    """The page without code blocks, tables, comments and addresses; inline code is one word."""
    text = re.sub(r"(?ms)^ *```.*?^ *```$|<!--.*?-->", "\n\n", text)
    text = re.sub(r"(?m)^\|.*$|^\[[\w-]+\]: .*$", "", text)
    text = re.sub(r"``.+?``|`[^`]+`", "code", text)
    text = re.sub(r"!?\[([^\]]*)\](\([^)]*\)|\[[\w-]*\])", r"\1", text)
    return text.replace("*", "")


def sentences(text: str) -> Iterator[str]:
    """The sentences of a page; a heading, a list item and the end of a paragraph end one, too."""
    for block in re.split(r"\n\s*\n|\n(?=#+ )|\n(?= *(?:-|\d+\.) )|(?<=\n)#+ .*\n", prose(text)):
        yield from re.split(r"(?<=[.?!])[)\"]?\s+|:\s+(?=[A-Z])", " ".join(block.split()))


@pytest.mark.parametrize("name", PAGES)
def test_sentences_are_short(name: str) -> None:
    """No sentence of the page has more than thirty words."""
    found = [said for said in sentences(page(name)) if len(re.findall(r"\w[\w'.,-]*", said)) > LONGEST]
    assert found == []


@pytest.mark.parametrize("name", PAGES)
def test_the_subject_is_a_thing(name: str) -> None:
    """The page has none of the words that hide what it is about."""
    text = re.sub(r"(?ms)^ *```.*?^ *```$|`[^`]+`", "", page(name))
    assert [line for line in text.splitlines() if NOT_PLAIN.search(line)] == []
