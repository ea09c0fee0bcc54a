"""Each `vlmbatch` command that a page shows is valid: its options exist and accept their values."""

import re
import shlex
from collections.abc import Iterator
from typing import get_args

import pytest
from command import run
from documents import ROOT, blocks, page

from vlmbatch.config import Option, options
from vlmbatch.config.spec import typed

PAGES = ("README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")))
OPERATORS = set("();<>|&")
FLAGS = {option.flag: option for option in options()}
FLAGS |= {option.spec.short: option for option in options() if option.spec.short}
FLAGS |= {option.flag.replace("--", "--no-", 1): option for option in options() if option.type is bool}
OTHERS = ("--config", "--help", "-h")


def commands(text: str) -> Iterator[list[str]]:
    """The words after `vlmbatch` of all commands in sh and powershell blocks, and in inline code."""
    shown = [block.replace("\\\n", " ") for block in blocks(text, "sh")]
    shown += [block.replace("\\", "/").replace('"', " ") for block in blocks(text, "powershell")]
    spans = re.findall(
        r"`(vlmbatch (?:run |pull |models|doctor)[^`]*)`", re.sub(r"(?ms)^```.*?^```$", "", text)
    )
    for line in (line for block in (*shown, *spans) for line in block.splitlines()):
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words: list[str] = []
        for word in (*lexer, ";"):
            if not set(word) <= OPERATORS:
                words.append(word)
                continue
            if "vlmbatch" in words[:-1]:
                yield words[words.index("vlmbatch") + 1 :]
            words = []


CASES = [(name, words) for name in PAGES for words in commands(page(name)) if not words[0].startswith("-")]
RUNS = [
    pytest.param(words[1:], id=f"{name}: {shlex.join(words)}") for name, words in CASES if words[0] == "run"
]
REST = [pytest.param(words, id=f"{name}: {shlex.join(words)}") for name, words in CASES if words[0] != "run"]


def value_of(option: Option, text: str) -> object:
    """The value of the option for a typed text; raises ConfigError or ValueError if it refuses the text."""
    kinds = (option.type, *get_args(option.type))
    number = next((kind for kind in (int, float) if kind in kinds), None)
    value = number(text) if number and option.spec.parse is None else text
    return typed(option.name, option.type, option.spec, value)


@pytest.mark.parametrize("words", RUNS)
def test_each_shown_run_is_valid(words: list[str]) -> None:
    """Each flag of a shown run is an option, with a valid value if it takes one, and the run has a path."""
    rest, paths = iter(words), 0
    for word in rest:
        if word == "-" or not word.startswith("-"):
            paths += 1
            continue
        assert word in (*FLAGS, *OTHERS), f"no option {word}"
        option = FLAGS.get(word)
        if option is None or option.type is bool:
            assert word != "--config" or next(rest)
            continue
        text = next(rest, "")
        assert re.match("[^-]|-$", text), f"{word} has no value"
        value = value_of(option, text)
        assert not option.spec.choices or value in option.spec.choices, f"{word} {text}"
    assert paths or not words or "--help" in words, "no PATH"


@pytest.mark.parametrize("words", REST)
def test_each_other_shown_command_is_valid(words: list[str]) -> None:
    """Each other shown command exits with 0 if --help is added."""
    done = run(*words, "--help")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", PAGES)
def test_each_shell_block_can_be_parsed(name: str) -> None:
    """bash accepts each sh block of the page; nothing in it runs."""
    script = "\n".join(blocks(page(name), "sh"))
    done = run(command=("bash", "-n"), stdin=script.encode())
    assert (done.returncode, done.stderr) == (0, "")


def test_pages_show_commands() -> None:
    """docs/engines.md shows more than twenty runs, and the pages show pull, models and doctor."""
    shown = [words for name, words in CASES if name == "docs/engines.md"]
    assert len([words for words in shown if words[0] == "run"]) > 20
    assert {"pull", "models", "doctor"} <= {words[0] for words in shown}


def test_links_by_name_have_an_address() -> None:
    """In each page every [text][name] has an address, and every address is used."""
    for name in PAGES:
        text = re.sub(r"(?ms)^```.*?^```$|`[^`\n]*`", "`", page(name))
        assert set(re.findall(r"\]\[([a-z0-9-]+)\]", text)) == set(
            re.findall(r"(?m)^\[([a-z0-9-]+)\]: https://\S+$", text)
        ), name
