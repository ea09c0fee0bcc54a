"""The real command: its output and its exit codes."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from command import COMMAND, environment, records, run
from endpoint import Endpoint, Model
from running import ran

Photos = Callable[..., Path]
CLOSED = "http://127.0.0.1:9"
NEITHER = {"vlmbatch.backends.llama_cpp.backend", "xllamacpp", "ollama", "httpx"}
"""Modules that a run with neither an embedded engine nor a pull has no use for."""


def test_only_records_go_to_standard_output(photos: Photos, endpoint: Endpoint) -> None:
    """Standard output has one JSON record per image and nothing else; messages go to standard error."""
    photos(4)
    done = run("run", "photos", "--prompt", "hi", "-b", "ollama", "--base-url", endpoint.url)
    assert done.returncode == 0, done.stderr
    found = records(done.stdout)
    assert sorted(r["id"] for r in found) == [f"photos/p{n:04}.jpg" for n in range(4)]
    assert {r["status"] for r in found} == {"ok"}
    assert "using tiny-vision" in done.stderr
    assert "4 answered" in done.stderr


def test_the_same_command_again_writes_nothing(photos: Photos, endpoint: Endpoint) -> None:
    """With an output file the second run sends nothing, writes nothing and exits 0."""
    photos(4)
    args = (
        "run",
        "photos",
        "-p",
        "hi",
        "-b",
        "vllm",
        "-m",
        "tiny-vision",
        "--base-url",
        endpoint.url,
        "-o",
        "o.jsonl",
    )
    assert run(*args).returncode == 0
    first = Path("o.jsonl").read_bytes()
    again = run(*args)
    assert (again.returncode, Path("o.jsonl").read_bytes()) == (0, first)
    assert len(endpoint.questions) == 4
    assert "4 done before" in again.stderr


def test_a_broken_image_exits_3_now_and_the_next_time(photos: Photos, endpoint: Endpoint) -> None:
    """A permanent failure exits 3 in each run, and is retried only with --retry-failed."""
    (photos(2) / "bad.jpg").write_text("no image")
    args = ("run", "photos", "-b", "ollama", "--base-url", endpoint.url, "-o", "o.jsonl")
    first = run(*args)
    assert first.returncode == 3
    assert "bad_image" in first.stderr
    size = Path("o.jsonl").stat().st_size
    assert run(*args).returncode == 3
    assert Path("o.jsonl").stat().st_size == size
    assert run(*args, "--max-failures", "1").returncode == 0
    assert run(*args, "--max-failures", "30%").returncode == 3
    assert run(*args, "--retry-failed").returncode == 3
    assert len(Path("o.jsonl").read_text().splitlines()) == 4


def test_other_settings_are_not_mixed_in(photos: Photos, endpoint: Endpoint) -> None:
    """Another prompt for the same output exits 2, unless --append or --overwrite is set."""
    photos(2)
    args = ("run", "photos", "-b", "ollama", "--base-url", endpoint.url, "-o", "o.jsonl")
    assert run(*args, "-p", "one").returncode == 0
    refused = run(*args, "-p", "two")
    assert refused.returncode == 2
    assert all(word in refused.stderr for word in ("prompt", "one", "two", "--append", "--overwrite"))
    assert len(Path("o.jsonl").read_text().splitlines()) == 2
    assert run(*args, "-p", "two", "--append").returncode == 0
    assert len(Path("o.jsonl").read_text().splitlines()) == 4
    assert run(*args, "-p", "two", "--overwrite").returncode == 0
    assert len(Path("o.jsonl").read_text().splitlines()) == 2


def test_an_unknown_model_exits_2_with_the_nearest(photos: Photos, endpoint: Endpoint) -> None:
    """A wrong model name exits 2 without a record; the message has the nearest name and the pull command."""
    photos(1)
    done = run("run", "photos", "-b", "ollama", "-m", "tiny-visoin", "--base-url", endpoint.url)
    assert (done.returncode, done.stdout) == (2, "")
    assert "tiny-vision" in done.stderr
    assert "vlmbatch pull tiny-visoin" in done.stderr
    assert "Traceback" not in done.stderr


def test_no_endpoint_exits_4_without_a_record(photos: Photos) -> None:
    """An unreachable endpoint exits 4, the message says what to start, and no output file remains."""
    photos(1)
    done = run(
        "run", "photos", "-b", "ollama", "--base-url", CLOSED, "-o", "o.jsonl", "--give-up-after", "0.2"
    )
    assert done.returncode == 4
    assert "ollama serve" in done.stderr
    assert not Path("o.jsonl").exists()


@pytest.mark.parametrize("separator", ["\n", "\0"])
def test_a_list_of_paths_on_standard_input(photos: Photos, endpoint: Endpoint, separator: str) -> None:
    """`-` reads paths from standard input, separated by newlines or NUL characters."""
    photos(5)
    listed = separator.join(["photos/p0003.jpg", "./photos/p0001.jpg", ""])
    done = run("run", "-", "-b", "ollama", "--base-url", endpoint.url, stdin=listed.encode())
    assert done.returncode == 0, done.stderr
    assert {r["id"] for r in records(done.stdout)} == {"photos/p0003.jpg", "photos/p0001.jpg"}


def test_dry_run_sends_nothing(photos: Photos, endpoint: Endpoint) -> None:
    """--dry-run counts images and sizes, names the endpoint, and sends no request."""
    (photos(3, (2000, 1000)) / "bad.jpg").write_text("no image")
    done = run("run", "photos", "--dry-run", "-b", "ollama", "--base-url", endpoint.url, "-p", "Say it")
    assert (done.returncode, done.stdout, endpoint.requests) == (0, "", [])
    for told in (
        "images: 4",
        "3 at 1024x512",
        endpoint.url,
        "Say it",
        "images that would fail: 1",
        "photos/bad.jpg",
    ):
        assert told in done.stderr


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("run", "nowhere"), "nowhere"),
        (("run",), "PATH"),
        (("run", ".", "--max-size", "7"), "--max-size"),
        (("run", ".", "--max-size", "big"), "--max-size"),
        (("run", ".", "--max-bytes", "big"), "--max-bytes"),
        (("run", ".", "--promt", "x"), "--prompt"),
        (("run", ".", "-b", "olama"), "choose one of"),
        (("run", ".", "--prompt-file", "nowhere.txt"), "nowhere.txt"),
        (("run", ".", "--base-url", "localhost"), "--base-url"),
        (("run", ".", "-b", "ollama", "--base-url", "http://h:99999"), "--base-url"),
        (("run", ".", "--config", "nowhere.toml"), "nowhere.toml"),
        (("run", ".", "-b", "llama-cpp", "-m", "nowhere.gguf"), "nowhere.gguf"),
    ],
)
def test_a_wrong_word_exits_2_and_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, args: tuple[str, ...], told: str
) -> None:
    """A mistake of the user exits 2 with a message that names it, and no traceback."""
    monkeypatch.chdir(tmp_path)
    done = run(*args)
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_flag_overrides_the_environment_and_the_environment_the_file(
    photos: Photos, endpoint: Endpoint
) -> None:
    """An option comes from the command line first, then from VLMBATCH_*, then from a file."""
    photos(1)
    Path("mine.toml").write_text(
        f'prompt = "of the file"\nbackend = "ollama"\nbase-url = "{endpoint.url}"\n'
        'max_tokens = 7\nmax-bytes = "5MB"\n'
    )
    asking, prompt = ("run", "photos", "--config", "mine.toml"), {"VLMBATCH_PROMPT": "of the environment"}
    assert run(*asking).returncode == 0
    assert run(*asking, **prompt).returncode == 0
    assert run(*asking, "-p", "of the flag", **prompt).returncode == 0
    asked = [q.body["messages"][-1]["content"] for q in endpoint.questions]
    assert asked == ["of the file", "of the environment", "of the flag"]
    assert {q.body["options"]["num_predict"] for q in endpoint.questions} == {7}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("max-sice = 7", "did you mean max-size?"),
        ("max-size = ", "not TOML"),
        ('max-size = "big"', "line 1: max-size"),
        ("max-size = 7", "line 1: max-size"),
    ],
)
def test_a_wrong_file_is_reported(photos: Photos, content: str, told: str) -> None:
    """A misspelt key, bad TOML or a bad value in vlmbatch.toml exits 2, and the message names it."""
    photos(1)
    Path("vlmbatch.toml").write_text(content)
    done = run("run", "photos")
    assert done.returncode == 2
    assert told in done.stderr


@pytest.mark.parametrize(
    ("content", "args", "prompt"),
    [
        ('prompt = "of the file"', ("--prompt-file", "p.txt"), "of the flag"),
        ('prompt-file = "nowhere.txt"', ("-p", "of the flag"), "of the flag"),
        ('quiet = true\nprompt = "of the file"', ("-v",), "of the file"),
        ('dry-run = true\nprompt = "of the file"', ("--no-dry-run",), "of the file"),
    ],
)
def test_a_flag_overrides_an_exclusive_key_of_the_file(
    photos: Photos, endpoint: Endpoint, content: str, args: tuple[str, ...], prompt: str
) -> None:
    """A flag overrides a key in the file that excludes it, and can switch off a key that is on."""
    photos(1)
    Path("p.txt").write_text("of the flag\n")
    Path("mine.toml").write_text(f'backend = "ollama"\nbase-url = "{endpoint.url}"\n{content}\n')
    done = run("run", "photos", "--config", "mine.toml", *args)
    assert done.returncode == 0, done.stderr
    assert [q.body["messages"][-1]["content"] for q in endpoint.questions] == [prompt]


def test_a_home_that_cannot_be_entered_is_no_error(photos: Photos, endpoint: Endpoint) -> None:
    """A run works without the user's file if the configuration folder cannot be read."""
    photos(1)
    locked = Path("locked")
    locked.mkdir(mode=0)
    done = run("run", "photos", "-b", "ollama", "--base-url", endpoint.url, XDG_CONFIG_HOME=str(locked))
    assert done.returncode == 0, done.stderr


def test_overwrite_keeps_the_old_records_until_there_is_a_new_one(photos: Photos, endpoint: Endpoint) -> None:
    """A run with --overwrite and no answer leaves the file unchanged."""
    photos(2)
    args = ("run", "photos", "-b", "ollama", "--base-url", endpoint.url, "-o", "o.jsonl")
    assert run(*args).returncode == 0
    before = Path("o.jsonl").read_bytes()
    endpoint.script = ["401"] * 9
    assert run(*args, "-p", "new", "--overwrite").returncode == 2
    assert Path("o.jsonl").read_bytes() == before
    endpoint.script = []
    assert run(*args, "-p", "new", "--overwrite").returncode == 0
    assert len(records(Path("o.jsonl").read_text())) == 2
    assert Path("o.jsonl").read_bytes() != before


def test_overwrite_refuses_a_file_of_another_program(photos: Photos, endpoint: Endpoint) -> None:
    """A picture as --output is refused and unchanged, and no lock file remains next to it."""
    photos(2)
    before = Path("photos/p0000.jpg").read_bytes()
    done = run(
        "run", "photos", "-b", "ollama", "--base-url", endpoint.url, "-o", "photos/p0000.jpg", "--overwrite"
    )
    assert done.returncode == 2
    assert Path("photos/p0000.jpg").read_bytes() == before
    assert sorted(p.name for p in Path("photos").iterdir()) == ["p0000.jpg", "p0001.jpg"]


def test_too_few_descriptors_end_the_run_without_a_traceback(photos: Photos, endpoint: Endpoint) -> None:
    """A run without enough file descriptors fails, without a traceback."""
    photos(40)
    asking = (
        f"{' '.join(COMMAND)} run photos -q -b vllm -m tiny-vision -c 30 --drain 0 --base-url {endpoint.url}"
    )
    endpoint.script = lambda request: "held"  # so that all 30 are open at once
    done = subprocess.run(
        ["bash", "-c", f"ulimit -n 24; {asking}"],
        env=environment(),
        capture_output=True,
        timeout=240,
        check=False,
    )
    assert done.returncode != 0
    assert b"Traceback" not in done.stderr


def test_a_named_config_replaces_the_one_here(photos: Photos, endpoint: Endpoint) -> None:
    """--config reads another file, and ./vlmbatch.toml is not read."""
    photos(1)
    Path("vlmbatch.toml").write_text("not TOML at all")
    Path("mine.toml").write_text(f'prompt = "mine"\nbackend = "ollama"\nbase-url = "{endpoint.url}"\n')
    assert run("run", "photos", "--config", "mine.toml").returncode == 0
    assert endpoint.questions[0].body["messages"][-1]["content"] == "mine"


def test_ollama_host_names_the_ollama(photos: Photos, endpoint: Endpoint) -> None:
    """A run without --backend uses the Ollama of OLLAMA_HOST, even without a scheme in it."""
    photos(1)
    done = run("run", "photos", OLLAMA_HOST=f"127.0.0.1:{endpoint.port}")
    assert done.returncode == 0, done.stderr
    assert records(done.stdout)[0]["backend"] == "ollama"


def test_a_lost_endpoint_is_not_answered_by_the_demonstration_model(photos: Photos) -> None:
    """If a named endpoint or model is unavailable, the run exits 4 without the demonstration model."""
    photos(1)
    for args, variables in (
        ((), {"OLLAMA_HOST": "127.0.0.1:9"}),
        (("--model", "llava"), {}),
        (("--base-url", CLOSED), {}),
        ((), {"OPENAI_BASE_URL": CLOSED}),
    ):
        done = run("run", "photos", "--give-up-after", "0.1", *args, **variables)
        assert (done.returncode, done.stdout) == (4, ""), (args, variables, done.stderr)


def test_several_vision_models_are_named(photos: Photos) -> None:
    """An endpoint with two vision models exits 2, and the message names both."""
    photos(1)
    models = {"one": Model(vision=True), "two": Model(vision=True), "blind": Model(vision=False)}
    with Endpoint(models=models) as endpoint:
        done = run("run", "photos", "--base-url", endpoint.url)
    assert done.returncode == 2
    assert "one" in done.stderr
    assert "two" in done.stderr
    assert "blind" not in done.stderr


def test_the_log_is_json_and_holds_no_answers_or_keys(photos: Photos, endpoint: Endpoint) -> None:
    """--log-json prints one event per line, without any key or password."""
    photos(2)
    done = run(
        "run", "photos", "--log-json", "-b", "vllm", "-m", "tiny-vision",
        "--base-url", endpoint.url.replace("//", "//me:pa55@"), "--api-key", "s3cret",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stderr.splitlines()]
    assert [e["event"] for e in events].count("image_finished") == 2
    assert events[-1]["event"] == "run_finished"
    assert events[-1]["summary"]["succeeded"] == 2
    for secret in ("s3cret", "pa55"):
        assert secret not in done.stderr + done.stdout


def test_quiet_prints_nothing_after_a_good_run(photos: Photos, endpoint: Endpoint) -> None:
    """With --quiet a good run prints nothing, so that cron sends no mail."""
    photos(2)
    done = run("run", "photos", "-q", "-b", "ollama", "--base-url", endpoint.url, "-o", "o.jsonl")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_quiet_still_reports_failures(photos: Photos, endpoint: Endpoint) -> None:
    """With --quiet, cron's mail counts the failed images, and names the first ones with their reasons."""
    for number in range(6):
        (photos(2) / f"bad\x1b{number}.jpg").write_text("no image")
    done = run("run", "photos", "-q", "-b", "ollama", "--base-url", endpoint.url, "-o", "o.jsonl")
    told = done.stderr.splitlines()
    assert done.returncode == 3
    assert "6 failed" in told[0]
    assert all(line.endswith(": bad_image: not an image: it begins like text") for line in told[1:-1])
    assert len(told) == 7
    assert told[-1] == "vlmbatch:   and 1 more; their records have the reasons"
    assert "\x1b" not in done.stderr


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv of util-linux")
def test_quiet_names_the_folders_that_cannot_be_read(photos: Photos, endpoint: Endpoint) -> None:
    """With --quiet the folder that makes the exit code 3 is named, since no record names it."""
    (photos(1) / "closed").mkdir(0)
    plain = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []
    asked = ("run", "photos", "-q", "-b", "ollama", "--base-url", endpoint.url, "-o", "o.jsonl")
    done = run(*asked, command=(*plain, *COMMAND))
    assert done.returncode == 3
    assert done.stderr.endswith("\nvlmbatch: photos/closed: cannot be listed: permission denied\n")
    assert run(*asked, "--max-failures", "1", command=(*plain, *COMMAND)).stderr == ""


def test_hostile_names_cannot_control_the_terminal(photos: Photos, endpoint: Endpoint) -> None:
    """Control characters of file names are in the records as JSON, and never reach the terminal."""
    folder = photos(0)
    for name in (b"\x1b[31mred.jpg", b"new\nline.jpg", b"caf\xe9.jpg"):
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(b"no image")
    done = run("run", "photos", "-b", "ollama", "--base-url", endpoint.url)
    assert done.returncode == 3
    assert "\x1b" not in done.stderr
    assert {os.fsencode(r["id"]) for r in records(done.stdout)} == {
        b"photos/\x1b[31mred.jpg",
        b"photos/new\nline.jpg",
        b"photos/caf\xe9.jpg",
    }


def test_version_and_help_import_nothing_heavy() -> None:
    """--version and --help import no Pillow, no ollama, no aiohttp, no rich and no asyncio."""
    commands = ("run", "pull", "models", "doctor")
    for args in (["--version"], ["--help"], *([command, "--help"] for command in commands)):
        code = (
            "import sys; from vlmbatch import cli\n"
            "try: cli.main()\n"
            "except SystemExit: pass\n"
            "heavy = {'PIL', 'ollama', 'aiohttp', 'httpx', 'rich', 'asyncio', 'tenacity'}\n"
            "print('HEAVY', sorted(heavy & set(sys.modules)))"
        )
        done = run(*args, command=(COMMAND[0], "-c", code))
        assert done.stdout.splitlines()[-1] == "HEAVY []"


@pytest.mark.parametrize(
    ("backend", "path", "others"),
    [
        ("ollama", "", {"vlmbatch.backends.openai.backend", *NEITHER}),
        ("vllm", "/v1", {"vlmbatch.backends.ollama.backend", *NEITHER}),
    ],
)
def test_a_run_imports_one_backend(
    photos: Photos, endpoint: Endpoint, backend: str, path: str, others: set[str]
) -> None:
    """A run with Ollama does not import the backend of OpenAI servers, and the reverse."""
    photos(1)
    code = (
        "import sys; from vlmbatch.cli import app\n"
        "try: app(sys.argv[1:])\n"
        "except SystemExit as done: assert not done.code, done.code\n"
        f"print('OTHERS', sorted({others!r} & set(sys.modules)), 'PIL' in sys.modules)"
    )
    where = f"{endpoint.url}{path}"
    asked = ["run", "photos", "-b", backend, "--base-url", where, "-m", "tiny-vision", "-o", "o.jsonl"]
    done = run(*asked, command=(COMMAND[0], "-c", code))
    assert done.stdout.splitlines()[-1] == "OTHERS [] True"
    assert len(endpoint.questions) == 1


@pytest.mark.parametrize(
    "variables",
    [
        {"OLLAMA_HOST": "'127.0.0.1:PORT'"},
        {"OLLAMA_HOST": "0.0.0.0:PORT"},
        {"OLLAMA_HOST": "127.0.0.1:PORT", "ALL_PROXY": "socks5://127.0.0.1:1"},
        {"OLLAMA_HOST": "127.0.0.1:PORT", "SSL_CERT_FILE": "/nowhere"},
        {"OLLAMA_HOST": "127.0.0.1:PORT", "HTTP_PROXY": "foo://x", "HTTPS_PROXY": "http://x:99999"},
    ],
)
def test_proxies_do_not_affect_a_local_ollama(
    photos: Photos, endpoint: Endpoint, variables: dict[str, str]
) -> None:
    """Every form of OLLAMA_HOST works, and a proxy or certificate of the environment has no effect on it."""
    photos(1)
    done = run("run", "photos", **{k: v.replace("PORT", str(endpoint.port)) for k, v in variables.items()})
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("backend", "variables"),
    [
        ("ollama", {"OLLAMA_HOST": "http://[::1"}),
        ("ollama", {"OLLAMA_HOST": "far.invalid", "ALL_PROXY": "socks5://127.0.0.1:1"}),
        ("ollama", {"OLLAMA_HOST": "far.invalid", "HTTP_PROXY": "foo://x"}),
        ("vllm", {"OPENAI_BASE_URL": "http://far.invalid/v1", "HTTP_PROXY": "foo://x"}),
        ("vllm", {"OPENAI_BASE_URL": "http://far.invalid/v1", "HTTP_PROXY": "http://x:99999"}),
        ("vllm", {"OPENAI_BASE_URL": "far.invalid"}),
    ],
)
async def test_a_broken_environment_is_reported(
    photos: Photos, monkeypatch: pytest.MonkeyPatch, backend: str, variables: dict[str, str]
) -> None:
    """A broken address or proxy in the environment exits 2 or 4 with a message and no traceback."""
    photos(1)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    done = await ran(backend=backend, model="m", give_up_after=0.1)
    assert done.error is not None
    assert done.error.exit_code in (2, 4)
    assert str(done.error)
