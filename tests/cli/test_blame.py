"""A message about a wrong value names the place of the value: file and line, variable, or flag."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from inside import called

from vlmbatch.config.settings_file import read_settings
from vlmbatch.config.toml_options import line_of
from vlmbatch.errors import ConfigError

Photos = Callable[..., Path]
SECRET = "sk-s3cret"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (
            "# first\n\npromt = 'x'",
            "./vlmbatch.toml line 3: the key 'promt' is not known; did you mean prompt?",
        ),
        ("max-sise = 3", "./vlmbatch.toml line 1: the key 'max-sise' is not known; did you mean max-size?"),
        ("seed = 1\ntemperature = 'hot'", "./vlmbatch.toml line 2: temperature takes a number, not 'hot'"),
        ("seed = 1\nquality = 900", "./vlmbatch.toml line 2: quality must be between 1 and 100, not 900"),
        ("\nconcurrency = -1", "concurrency in ./vlmbatch.toml line 2: '-1' is not a number of requests"),
        (
            "max-size = 3\nmax_size = 4",
            "./vlmbatch.toml line 2: max_size is also set as max-size; keep one of them",
        ),
        ("seed = 1\nprompt = hot\n", "./vlmbatch.toml line 2, column 10: this is not TOML: Invalid value; "),
        (
            "seed = 1\n[run]\nprompt = 'x'",
            "./vlmbatch.toml line 2: the table 'run' is not known; write its keys at the top of the file",
        ),
        ("[[runs]]\nprompt = 'x'", "./vlmbatch.toml line 1: the table 'runs' is not known; "),
    ],
)
def test_a_mistake_in_a_file_is_told_with_its_line(photos: Photos, content: str, told: str) -> None:
    """A wrong key, value, table or syntax in ./vlmbatch.toml exits with 2 and names file and line once."""
    photos(1)
    Path("vlmbatch.toml").write_text(content)
    done = called("run", "photos")
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 2
    assert told in last
    assert last.count(" line ") == 1


def test_two_places_are_both_named(photos: Photos) -> None:
    """An error about two options of a file names both lines, and keeps the flags of its advice."""
    photos(1)
    Path("my.toml").write_text("overwrite = true\nappend = true\noutput = 'o.jsonl'\n")
    last = called("run", "photos", "--config", "my.toml").stderr.splitlines()[-1]
    assert "my.toml line 1 and my.toml line 2: overwrite and append are both set; keep one of them" in last
    Path("my.toml").write_text("append = true\n")
    last = called("run", "photos", "--config", "my.toml").stderr.splitlines()[-1]
    assert "my.toml line 1: append needs an output file; add --output FILE" in last


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("VLMBATCH_QUALITY", "900", "VLMBATCH_QUALITY must be between 1 and 100, not 900"),
        ("VLMBATCH_CONCURRENCY", "-1", "VLMBATCH_CONCURRENCY: '-1' is not a number of requests"),
        ("VLMBATCH_SEED", "hot", "VLMBATCH_SEED: 'hot' is not a whole number"),
        ("VLMBATCH_ALLOW_EMPTY", "maybe", "VLMBATCH_ALLOW_EMPTY takes 1 or 0, not 'maybe'"),
        ("VLMBATCH_HEADER", "no colon", "VLMBATCH_HEADER takes a name, a colon and a value; "),
    ],
)
def test_a_mistake_in_a_variable_names_the_variable(
    photos: Photos, variable: str, value: str, told: str
) -> None:
    """A wrong value of the environment is not told as a flag that the user did not type."""
    photos(1)
    done = called("run", "photos", **{variable: value})
    assert done.returncode == 2
    assert told in done.stderr.splitlines()[-1]


def test_a_typed_flag_is_named_as_typed(photos: Photos) -> None:
    """A wrong value of the command line is told as its flag, also if a file and a variable have values."""
    photos(1)
    Path("vlmbatch.toml").write_text("quality = 50")
    last = called("run", "photos", "--quality", "900", VLMBATCH_QUALITY="60").stderr.splitlines()[-1]
    assert "vlmbatch: --quality must be between 1 and 100, not 900" in last


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("prompt = 'x'", 1),
        ("\r\n# seed\r\nprompt = 'x'\r\n", 3),
        ("\n  \"prompt\" = 'x'", 2),
        ("\n\t'prompt'\t= 'x'", 2),
        ("system = '''\nprompt = 1\n'''\nprompt = 'x'", 4),
        ('system = """\nprompt = 1\n\\"""\nprompt = 2"""\nprompt = "x"', 5),
        ("include = [\n'a',\n]\nprompt = 'x'", 4),
        ("prompt.a = 1\nprompt.b = 2", 1),
        ("[a]\nprompt = 1\n[prompt]\nx = 1", 3),
        ("[a]\nprompt = 1", None),
        ("extra-body = { prompt = 1 }", None),
        ('"pr\\u006fmpt" = 1', None),
        ("system = '''" + "\nprompt = 1" * 20 + "'''\nprompt = 'x'", None),
    ],
)
def test_no_line_is_better_than_a_wrong_line(text: str, line: int | None) -> None:
    """The line of a key is found behind texts, lists and tables that hold its name, or there is none."""
    assert line_of("prompt", text) == line


def test_a_file_in_utf_16_has_lines(tmp_path: Path) -> None:
    """Lines are counted in the text, also if Windows wrote the file in UTF-16 with CRLF."""
    file = tmp_path / "w.toml"
    file.write_bytes("seed = 1\r\npromt = 'x'\r\n".encode("utf-16"))
    with pytest.raises(ConfigError, match=r"w\.toml line 2: the key 'promt'"):
        read_settings(str(file))


def test_an_unknown_variable_gets_a_warning(photos: Photos) -> None:
    """A misspelt VLMBATCH_ variable is named with the nearest name, also with -q; its value is not shown."""
    photos(1)
    asked = ("run", "photos", "--dry-run", "-b", "ollama")
    wrong = {"VLMBATCH_MODELL": SECRET, "VLMBATCH_APIKEY": SECRET, "VLMBATCH_XYZ": SECRET}
    done = called(*asked, **wrong)
    told = [line for line in done.stderr.splitlines() if " variable " in line]
    assert done.returncode == 0, done.stderr
    assert [line.removeprefix("vlmbatch: the variable ") for line in told] == [
        "VLMBATCH_APIKEY is not known and has no effect; did you mean VLMBATCH_API_KEY?",
        "VLMBATCH_MODELL is not known and has no effect; did you mean VLMBATCH_MODEL?",
        "VLMBATCH_XYZ is not known and has no effect; for all options type: vlmbatch run --help",
    ]
    assert SECRET not in done.stderr + done.stdout
    quiet = called(*asked, "-q", **wrong).stderr.splitlines()
    assert [line for line in quiet if " variable " in line] == told
    notice = json.loads(called(*asked, "--log-json", VLMBATCH_PROMT="x").stderr.splitlines()[0])
    assert notice["event"] == "notice"
    assert notice["message"].endswith("did you mean VLMBATCH_PROMPT?")


def test_known_and_empty_variables_get_no_warning(photos: Photos) -> None:
    """Variables of other parts and empty variables are quiet, and an empty variable sets nothing."""
    photos(1)
    Path("c.toml").write_text("seed = 1")
    done = called(
        *("run", "photos", "--dry-run", "-b", "ollama"),
        VLMBATCH_CONFIG="c.toml",
        VLMBATCH_HEADER="A: b",
        VLMBATCH_API_KEY="k",
        VLMBATCH_TEST_OLLAMA="x",
        VLMBATCH_COMPLETE_X="x",
        _VLMBATCH_COMPLETE="",
        VLMBATCH_TYPO="",
        VLMBATCH_MODEL="",
        VLMBATCH_QUALITY="",
    )
    assert done.returncode == 0, done.stderr
    assert " variable " not in done.stderr
