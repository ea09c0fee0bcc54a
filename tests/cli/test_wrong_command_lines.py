"""A wrong command line is exit code 2, with a short message that ends with what to type."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from command import run
from inside import called

from vlmbatch.cli.foreign_flags import FOREIGN_FLAGS
from vlmbatch.cli.front import COMMANDS, OWN_FLAGS
from vlmbatch.cli.suggestions import OTHER_WORDS, as_typed, unknown_command
from vlmbatch.config import options

Photos = Callable[..., Path]

FLAGS = {o.flag for o in options() if o.group not in ("service", "jobs")} | {"--config"}


@pytest.fixture
def _photos(folder: Path) -> None:
    (folder.parent / "rnu").mkdir()


@pytest.mark.usefixtures("_photos")
@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("photos", "vlmbatch run photos"),
        ("photos -p 'a b' -o \"it's\"", "vlmbatch run photos -p 'a b' -o 'it'\"'\"'s'"),
        ("rnu", "vlmbatch run rnu"),
        ("rum photos", "vlmbatch run photos"),
        ("caption photos", "vlmbatch run photos"),
        ("describe photos -p x", "vlmbatch run photos -p x"),
        ("doctr", "vlmbatch doctor"),
        ("list", "vlmbatch models"),
        ("download llava", "vlmbatch pull llava"),
        ("benchmark -m llava", "vlmbatch bench -m llava"),
        ("no/such/folder", "vlmbatch run no/such/folder"),
        ("cat.jpg", "vlmbatch run cat.jpg"),
        ("-", "vlmbatch run -"),
        ("-p x photos", "vlmbatch run -p x photos"),
        ("--prompt=x photos", "vlmbatch run --prompt=x photos"),
        ("-m llava models", "vlmbatch models -m llava"),
        ("--model llava run photos", "vlmbatch run --model llava photos"),
        ("--verbose run photos", "vlmbatch run --verbose photos"),
        ("--models", "vlmbatch models"),
        ("-V", "vlmbatch --version"),
        ("version", "vlmbatch --version"),
        ("--hlep", "vlmbatch --help"),
        ("photos --api-key sk-s3cret", "vlmbatch run photos --api-key ..."),
        ("photos --api_key=sk-s3cret -H 'A: s3cret'", "vlmbatch run photos --api_key=... -H ..."),
        ("photos --base-url http://me:s3cret@host/v1", "vlmbatch run photos --base-url http://host/v1"),
        ("photos --base-url=http://host/v1?key=s3cret", "vlmbatch run photos --base-url=http://host/v1"),
        ("photos -HA:s3cret -qH s3cret -vHA:s3cret", "vlmbatch run photos -H... -qH ... -vH..."),
        ("photos --base-url me:s3cret@host:8000", "vlmbatch run photos --base-url host:8000"),
        ("photos --base-url 'http://h/?key=s3cret x'", "vlmbatch run photos --base-url http://h/"),
        ("photos --option api_key=s3cret", "vlmbatch run photos --option api_key=..."),
        ("photos --fallback m,api-key=s3cret", "vlmbatch run photos --fallback m,api-key=..."),
        ("photos --bearer s3cret --pass s3cret", "vlmbatch run photos --bearer ... --pass ..."),
        ("photos --pwd s3cret --credentials=s3cret", "vlmbatch run photos --pwd ... --credentials=..."),
        ("photos --max-tokens 5", "vlmbatch run photos --max-tokens 5"),
    ],
)
def test_a_command_line_without_a_command(typed: str, meant: str) -> None:
    """Without a command the message ends with the command line that was meant, without secrets."""
    told = unknown_command(shlex.split(typed))
    assert told.endswith(f"; did you mean: {meant}")


def test_a_word_that_means_nothing() -> None:
    """A word that is neither a path nor like a command gets the list of commands."""
    assert unknown_command(["zzzz"]).endswith(
        "; the commands are run, doctor, models, pull, bench, serve, worker, enqueue and collect; "
        "type: vlmbatch --help"
    )


def test_a_hostile_word_cannot_control_the_terminal() -> None:
    """Control sequences in a command line do not reach the terminal."""
    done = run("\x1b[31mred/\n\x07", "--\x1b]0;x\x07")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert not re.search("[\x1b\x07]", done.stderr)
    assert "\x1b" not in called("run", "--\x1b[31mred", "x").stderr


def test_each_word_of_other_tools_has_a_command() -> None:
    """Each word of other tools leads to a command or a flag of vlmbatch, and is not itself a command."""
    assert set(OTHER_WORDS.values()) <= {*COMMANDS, *OWN_FLAGS, "--help"}
    assert not OTHER_WORDS.keys() & COMMANDS.keys()


@pytest.mark.parametrize("flag", FOREIGN_FLAGS)
def test_each_flag_of_other_tools_has_a_target(flag: str) -> None:
    """Each advice about a flag of another tool names options that exist, and the flag itself is not one."""
    advice = FOREIGN_FLAGS[flag]
    named = re.findall(r"--[a-z][a-z-]*", advice)
    assert named or " " in advice
    assert set(named) <= FLAGS
    shorts = {option.spec.short for option in options()}
    assert flag not in FLAGS | shorts
    assert flag == flag.lower().replace("_", "-") or len(flag) == 2


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("run", "no PATH is given; name a folder of images: vlmbatch run FOLDER"),
        (
            "run --api-key s3cret -p 'a b'",
            "no PATH is given; name a folder of images: vlmbatch run FOLDER --api-key ... -p 'a b'",
        ),
        ("enqueue", "no PATH is given; name a folder of images: vlmbatch enqueue FOLDER"),
        ("pull", "no MODEL is given; name one, for example: vlmbatch pull qwen2.5vl:7b"),
        ("run x --workers 4", "there is no option --workers; write --concurrency N|auto"),
        ("run x --trigger sks", "there is no option --trigger; the script in docs/captions.md writes a text"),
        ("run x -j4", "there is no option -j; write --concurrency N|auto"),
        (
            "run --input x",
            "there is no option --input; name the folder without an option: vlmbatch run FOLDER",
        ),
        (
            "run x --top_k=3",
            "there is no option --top_k; write --option NAME=VALUE for Ollama, or --extra-body",
        ),
        ("run x --max_size 3", "there is no option --max_size; write --max-size PIXELS|auto"),
        ("run x --promt y", "there is no option --promt; did you mean --prompt TEXT?"),
        ("run x --concurency y", "there is no option --concurency; did you mean --concurrency N|auto?"),
        (
            "run x --client y",
            "there is no option --client; did you mean --client-cert FILE or --client-key FILE?",
        ),
        ("run x --zzz", "there is no option --zzz; for all options type: vlmbatch run --help"),
        ("models --workers 3", "there is no option --workers; for all options type: vlmbatch models --help"),
        ("models --url x", "there is no option --url; write --base-url URL"),
        ("run x -p", "-p needs a value; write -p TEXT"),
        ("run x --quiet=3", "--quiet takes no value; write --quiet alone"),
        ("run x --seed y", "--seed: 'y' is not a whole number; write for example 7"),
        ("run x --quality 8.5", "--quality: '8.5' is not a whole number; write for example 7"),
        ("run x --temperature hot", "--temperature: 'hot' is not a number; write for example 0.5"),
        (
            "run x --max-size big",
            "--max-size: 'big' is not a number of pixels; write auto, or a number such as 768",
        ),
        ("run x --max-bytes big", "--max-bytes: 'big' is not a size; write for example 100MB"),
        ("run x --timeout soon", "--timeout: 'soon' is not a duration; write for example 90, 15m, 2h or 3d"),
        ("run x --until 25:00", "--until: '25:00' is not a time of day; write for example 06:30"),
        (
            "run x --max-failures few",
            "--max-failures: 'few' is neither a number nor a percentage; write 5 or 1%",
        ),
        ("run x --accept all", "--accept: 'all' is not known; write length, loop or length,loop"),
        ("run x -b olama", "--backend olama is not known; choose one of auto, ollama, vllm,"),
        ("run x --extra-body y", "--extra-body: the value is not JSON"),
        (
            "run x --base-url y",
            "--base-url y is neither a URL nor a file that exists; write for example http://y",
        ),
    ],
)
def test_a_wrong_option_or_value(typed: str, told: str) -> None:
    """A wrong option or value is exit code 2, and a single line says what to type."""
    done = called(*shlex.split(typed))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"vlmbatch: {told}")
    assert done.stderr.count("\n") == 1
    assert "s3cret" not in done.stderr


@pytest.mark.parametrize(
    "typed",
    [
        "--api-key -- s3cret",
        "--api-key= s3cret",
        "--header X-Token: s3cret",
        "--header Authorization: Bearer s3cret",
        "--header=Authorization: Basic s3cret",
        "-H Authorization: bearer s3cret",
        "--header Authorization: Token s3cret",
        "--header Cookie: a=1; b=s3cret",
        "-HX-Foo: s3cret",
        "-vH X-Foo: the s3cret",
        "--header Authorization:Bearer s3cret",
        "--header Authorization Bearer s3cret",
        "--header Cookie:a=b; s3cret",
        "--header X-A: -s3cret",
        "--api-key = s3cret",
        '--extra-body { "api_key": "s3cret" }',
        '--extra-body={ "api_key": "s3cret" }',
        "--base-url https://u:p/s3cret@host/v1",
    ],
)
def test_a_secret_of_several_words_is_not_shown(photos: Photos, typed: str) -> None:
    """A secret value without quotes, or behind two dashes, is replaced by dots; the rest is shown."""
    photos(1)
    for rest in ("photos", "-q photos"):
        shown = as_typed(["run", *typed.split(), *rest.split()])
        assert "s3cret" not in shown
        assert shown.endswith(f" {rest}")


def test_a_shown_command_line_can_be_typed() -> None:
    """A command line in a message gives the same words to a shell."""
    words = ["run", "it's here", "$(rm -rf x)", "a;b", "", "é"]
    assert shlex.split(as_typed(words)) == words
