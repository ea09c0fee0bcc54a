"""The help: it names every option once under its heading, and fits into terminals of any width."""

import fcntl
import os
import pty
import re
import shlex
import struct
import subprocess
import termios
from functools import cache
from typing import get_args

import pytest
from command import COMMAND, environment, run
from inside import called
from terminal import Terminal

from vlmbatch.cli import bench, collect, doctor, enqueue, models, pull, serve, worker
from vlmbatch.cli import run as run_command
from vlmbatch.cli.front import COMMANDS, PAGE, SHORT_PAGE
from vlmbatch.cli.help_page import shown_default
from vlmbatch.config import SECTIONS, options
from vlmbatch.config.spec import Section

OF_A_RUN = [option for option in options() if option.group not in ("service", "jobs")]
MODULES = {
    "run": run_command,
    "doctor": doctor,
    "models": models,
    "pull": pull,
    "bench": bench,
    "serve": serve,
    "worker": worker,
    "enqueue": enqueue,
    "collect": collect,
}


@cache
def shown(command: str, columns: int) -> list[str]:
    """The lines of the help of a command in a terminal of this width."""
    done = called(command, "--help", COLUMNS=str(columns))
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def flags_of(lines: list[str]) -> list[str]:
    """The long flags at the start of the options in a help."""
    rows = (re.match(r"  (?:-\w, )?(--[\w-]+)", line) for line in lines)
    return [row[1] for row in rows if row]


@pytest.mark.parametrize("columns", [60, 80, 160])
@pytest.mark.parametrize("command", COMMANDS)
def test_no_line_is_wider_than_the_terminal(command: str, columns: int) -> None:
    """No line of a help is wider than the terminal, and a wide terminal gives longer lines."""
    longest = max(map(len, shown(command, columns)))
    assert longest <= columns
    assert longest > min(columns, 110) - 25


def test_the_help_of_vlmbatch_fits_into_sixty_columns() -> None:
    """The first pages have at most 60 columns, and that of --help names each command."""
    assert max(len(line) for page in (PAGE, SHORT_PAGE) for line in page.splitlines()) <= 60
    assert re.findall(r"^  (\w+) +[A-Z]", PAGE, re.MULTILINE) == list(COMMANDS)


@pytest.mark.parametrize("columns", [60, 80, 160])
def test_no_word_is_broken(columns: int) -> None:
    """Each word, default, URL and name of an engine stands unbroken in a line."""
    lines = [re.sub(r"^  (?=-)(-\w, )?--[\w-]+( \S+)?", "", line) for line in shown("run", columns)]
    words = [word for line in lines for word in line.split()]
    for option in OF_A_RUN:
        assert all(word in words for word in option.spec.help.split()), option.name
        default = shown_default(option)
        assert default is None or any(f"[default: {default}]" in line for line in lines), option.name


def test_every_option_stands_once_under_its_heading() -> None:
    """The help of a run has each option once, under the heading that is declared with the option."""
    lines = shown("run", 80)
    text = "\n".join(lines)
    parts = re.split(r"^(\S.*):$", text.partition("\nEach option can")[0], flags=re.MULTILINE)[1:]
    headings = dict(zip(parts[::2], (flags_of(p.splitlines()) for p in parts[1::2]), strict=True))
    assert list(headings) == [
        "Arguments",
        *(name for name in get_args(Section) if name not in ("Service", "Queue")),
    ]
    for option in OF_A_RUN:
        name = option.flag.replace("--", "--no-", 1) if option.default is True else option.flag
        assert [heading for heading, flags in headings.items() if name in flags] == [option.section]
    assert len(flags_of(lines)) == len(set(flags_of(lines))) == len(OF_A_RUN) + 2
    assert len(headings["Options to know first"]) == 6


def test_every_group_of_options_has_a_heading() -> None:
    """Each group of options has a heading, so a new option of it stands in the help."""
    assert {option.group for option in options()} == set(SECTIONS)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_examples_of_a_help_are_valid(command: str) -> None:
    """Each example in a help names the command, and each of its options is in the same help."""
    examples = [line for line in MODULES[command].EPILOG.splitlines() if line.startswith("  vlmbatch ")]
    assert 2 <= len(examples) <= 3
    lines = shown(command, 80)
    names = re.findall(r"(?<![\w-])--?[a-z][\w-]*", "\n".join(lines[: lines.index("Examples:")]))
    for example in examples:
        assert example in lines
        _, named, *words = shlex.split(example)
        assert named == command
        assert [word for word in words if word.startswith("-") and word not in names] == []


def test_the_help_uses_the_width_of_the_terminal() -> None:
    """In a terminal the help has the width of the terminal, also if a pager in it reads standard output."""
    with Terminal("models", "--help", columns=66, stdout=True) as terminal:
        assert terminal.wait() == 0
        assert 58 < max(map(len, terminal.rows)) <= 66
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 66, 0, 0))
    done = subprocess.run(
        [*COMMAND, "models", "--help"], stdin=theirs, capture_output=True, text=True, env=environment()
    )
    os.close(ours)
    os.close(theirs)
    assert 58 < max(map(len, done.stdout.splitlines())) <= 66


def test_help_is_a_command() -> None:
    """`vlmbatch help` and `vlmbatch help run` print what `--help` prints."""
    assert run("help").stdout == run("--help").stdout == run("-h").stdout == PAGE
    assert run("help", "run").stdout == run("run", "--help").stdout
    assert run("help", "rnu").returncode == 2


def test_vlmbatch_alone_says_what_to_type_next() -> None:
    """Without a command the exit code is 2, and standard error has three commands to type."""
    done = run()
    assert (done.returncode, done.stdout, done.stderr) == (2, "", SHORT_PAGE)
    assert len(re.findall(r"^  vlmbatch ", SHORT_PAGE, re.MULTILINE)) == 3


def test_the_first_pages_import_no_typer() -> None:
    """`vlmbatch --help` and `vlmbatch` alone import neither typer nor the options nor a heavy module."""
    for args in ((), ("--help",), ("help",)):
        code = (
            "import sys; from vlmbatch import cli\n"
            "try: cli.main()\n"
            "except SystemExit: pass\n"
            "heavy = {'typer', 'rich', 'PIL', 'aiohttp', 'asyncio', 'inspect', 'json', 'vlmbatch.config'}\n"
            "print('HEAVY', sorted(heavy & set(sys.modules)))"
        )
        done = run(*args, command=(COMMAND[0], "-c", code))
        assert done.stdout.splitlines()[-1] == "HEAVY []"
