"""Settings files: a downloaded ./vlmbatch.toml is not dangerous, and the first line names all files."""

import json
import os
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from certificates import make_certificates
from command import COMMAND, records, run
from endpoint import Endpoint, Model
from inside import called

from vlmbatch.config import options
from vlmbatch.config.settings_file import LARGEST_BYTES, read_settings
from vlmbatch.errors import ConfigError

Photos = Callable[..., Path]
KEY = "sk-s3cret-of-the-user"
OTHER_USER = 65534


@pytest.fixture
def elsewhere() -> Iterator[Endpoint]:
    """The server of an attacker, which has a model with every name."""
    with Endpoint(models={"tiny-vision": Model(vision=True)}) as running:
        yield running


def planted(content: str) -> None:
    """Put this ./vlmbatch.toml into the current folder."""
    Path("vlmbatch.toml").write_text(content)


def own(content: str, mode: int = 0o600) -> dict[str, str]:
    """Write the user's own file; returns the variable that leads to it."""
    file = Path("home/vlmbatch/vlmbatch.toml")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)
    file.chmod(mode)
    return {"XDG_CONFIG_HOME": str(Path("home").absolute())}


@pytest.mark.parametrize(
    "content",
    [
        'backend = "openai"\nbase-url = "URL/v1"\nmodel = "tiny-vision"',
        'fallback = "openai:tiny-vision@URL/v1"',
        'fallback = "openai:tiny-vision@URL/v1#OPENAI_API_KEY"\nfallback-on = "bad-answer"',
    ],
)
def test_a_planted_file_sends_no_key_anywhere(
    photos: Photos, endpoint: Endpoint, elsewhere: Endpoint, content: str
) -> None:
    """A ./vlmbatch.toml cannot name an endpoint or a fallback: the run exits with 2 and asks no server."""
    photos(1)
    planted(content.replace("URL", elsewhere.url))
    done = run("run", "photos", OPENAI_API_KEY=KEY, OLLAMA_HOST=endpoint.url)
    assert done.returncode == 2
    assert "./vlmbatch.toml sets " in done.stderr
    assert not elsewhere.requests
    assert not endpoint.requests


@pytest.mark.parametrize(
    ("content", "key"),
    [
        ('prompt-file = "secret.txt"', "prompt-file"),
        ('schema = "secret.txt"', "schema = 'secret.txt'"),
        ("file-urls = true", "file-urls"),
        ("insecure = true", "insecure"),
        ('ca-cert = "ca.pem"', "ca-cert"),
        ('output = "planted.jsonl"', "output"),
        ('summary = "planted.json"', "summary"),
        ('metrics-file = "planted.prom"', "metrics-file"),
        ('cache = "planted"', "cache"),
        ("quiet = true", "quiet"),
        ("log-json = true", "log-json"),
        ("max-cost = 1000000", "max-cost"),
        ('max-failures = "100%"', "max-failures"),
        ('max-bytes = "1 GB"', "max-bytes"),
        ('max-pixels-in = "10000MP"', "max-pixels-in"),
        ('extra-body = {user = "x"}', "extra-body"),
        ('model = "planted.gguf"', "model = 'planted.gguf'"),
        ('model = "hf.co/planted/model"', "model = 'hf.co/planted/model'"),
        ('model = "gpt-oss:120b-cloud"', "model = 'gpt-oss:120b-cloud'"),
    ],
)
def test_a_planted_file_cannot_do_harm(photos: Photos, endpoint: Endpoint, content: str, key: str) -> None:
    """A ./vlmbatch.toml that names files, weakens TLS, writes, silences or raises a limit exits with 2."""
    photos(1)
    Path("secret.txt").write_text("the secret of the user")
    planted(content)
    before = sorted(path.name for path in Path().iterdir())
    done = run("run", "photos", "-b", "ollama", "--base-url", endpoint.url)
    assert done.returncode == 2
    assert f"./vlmbatch.toml sets {key}, which it may not set:" in done.stderr
    assert "add --config ./vlmbatch.toml" in done.stderr
    assert sorted(path.name for path in Path().iterdir()) == before
    assert not endpoint.requests


def test_a_message_names_all_keys_and_the_own_file(photos: Photos) -> None:
    """One message names all keys that ./vlmbatch.toml may not set, and the file that may set them."""
    photos(1)
    planted('prompt = "p"\nbase-url = "http://127.0.0.1:9"\napi-key = "k-s3cret"\noutput = "o.jsonl"\n')
    for command in (("run", "photos"), ("doctor",), ("models",), ("pull", "llava")):
        done = called(*command, XDG_CONFIG_HOME="/home/me/.config")
        assert done.returncode == 2
        assert "sets base-url, api-key, output, which it may not set:" in done.stderr
        assert "or move these options to /home/me/.config/vlmbatch/vlmbatch.toml" in done.stderr
        assert "k-s3cret" not in done.stderr


def test_a_planted_file_does_not_switch_off_tls(photos: Photos, tmp_path: Path) -> None:
    """With the user's own endpoint and key, ./vlmbatch.toml cannot accept a certificate for it."""
    files = make_certificates(tmp_path)
    photos(1)
    planted("insecure = true")
    with Endpoint(tls=files.server()) as endpoint:
        mine = own(f'backend = "openai"\nbase-url = "{endpoint.url}/v1"\napi-key = "{KEY}"\n')
        done = run("run", "photos", "-m", "tiny-vision", **mine)
    assert done.returncode == 2
    assert not endpoint.requests


def test_what_shapes_a_question_may_be_in_the_folder(photos: Photos, endpoint: Endpoint) -> None:
    """Both files count, ./vlmbatch.toml overrides the user's own, and the first line names both."""
    photos(2)
    endpoint.answer = lambda request: "{}"
    mine = own(f'backend = "ollama"\nbase-url = "{endpoint.url}"\nmax-tokens = 7\nprompt-file = "none.txt"\n')
    planted('prompt = "of the folder"\nmodel = "tiny-vision"\nmax-tokens = 9\nlimit = 1\nschema = "{}"\n')
    done = run("run", "photos", **mine)
    assert done.returncode == 0, done.stderr
    assert len(records(done.stdout)) == 1
    (question,) = endpoint.questions
    assert question.body["messages"][-1]["content"] == "of the folder"
    assert question.body["options"]["num_predict"] == 9
    first = done.stderr.splitlines()[0]
    assert first == (
        f"vlmbatch: settings from ./vlmbatch.toml and {mine['XDG_CONFIG_HOME']}/vlmbatch/vlmbatch.toml"
    )
    again = run("run", "photos", "--prompt", "typed", "--max-tokens", "11", **mine)
    assert again.returncode == 0, again.stderr
    assert endpoint.questions[-1].body["options"]["num_predict"] == 11


@pytest.mark.parametrize("command", [("run", "photos"), ("doctor",), ("models",), ("pull", "llava")])
def test_each_command_names_its_files(photos: Photos, command: tuple[str, ...]) -> None:
    """The first line of each command names the settings files, which with --config is only that file."""
    photos(1)
    mine = own('base-url = "http://127.0.0.1:9"\ngive-up-after = 0\nretries = 0\ncanary = false\n')
    planted("timeout = 5\n")
    (done, named) = (
        called(*command, *more, VLMBATCH_GIVE_UP_AFTER="0", **mine)
        for more in ((), ("--config", "vlmbatch.toml"))
    )
    assert done.returncode == 4
    assert done.stderr.startswith("vlmbatch: settings from ./vlmbatch.toml and ")
    assert named.stderr.startswith("vlmbatch: settings from vlmbatch.toml\n")


def test_the_line_comes_before_an_error_and_obeys_the_display(photos: Photos) -> None:
    """The line comes before an error about options; it is JSON with --log-json, and missing with -q."""
    photos(1)
    planted("timeout = 5\n")
    wrong = ("run", "photos", "--prompt", "a", "--prompt-file", "b")
    assert called(*wrong).stderr.startswith("vlmbatch: settings from ./vlmbatch.toml\n")
    assert "settings from" not in called(*wrong, "-q").stderr
    told = json.loads(called(*wrong, "--log-json").stderr.splitlines()[0])
    assert (told["event"], told["message"]) == ("notice", "settings from ./vlmbatch.toml")
    Path("vlmbatch.toml").unlink()
    assert "settings from" not in called(*wrong).stderr


def test_the_line_comes_before_a_value_of_the_wrong_form(photos: Photos) -> None:
    """The line comes before an error about a value that is no number, which may come from the file."""
    photos(1)
    planted("concurrency = -1\n")
    done = called("run", "photos")
    assert done.returncode == 2
    first, *_, last = done.stderr.splitlines()
    assert first == "vlmbatch: settings from ./vlmbatch.toml"
    assert "concurrency in ./vlmbatch.toml line 1: '-1' is not a number of requests" in last
    assert "settings from" not in called("run", "photos", "-q").stderr
    planted("timeout = 5\n")
    assert called("pull").stderr.startswith("vlmbatch: settings from ./vlmbatch.toml\n")


def test_texts_may_have_many_dots(tmp_path: Path) -> None:
    """Dots in texts and comments do not count, also behind quotes and equals signs."""
    dots = "= ." * 200
    texts = (f'"\\"{dots}"', f"'{dots}'", f'"""\n{dots}\\"""{dots}""""', f"'''\n[{dots}'''")
    file = tmp_path / "dots.toml"
    for text in texts:
        file.write_text(f"prompt = {text} # {dots}\nsystem = {text}\n")
        assert dots in read_settings(str(file)).values["system"]


def test_a_file_of_the_kernel_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A planted link to a file of the kernel is no settings: to read some of them waits without end."""
    monkeypatch.chdir(tmp_path)
    Path("vlmbatch.toml").symlink_to("/proc/self/status")
    assert not read_settings(None).values


def test_a_named_file_is_trusted(photos: Photos, endpoint: Endpoint) -> None:
    """--config ./vlmbatch.toml and VLMBATCH_CONFIG trust a file, since the user named it."""
    photos(1)
    planted(f'backend = "ollama"\nbase-url = "{endpoint.url}"\n')
    assert run("run", "photos", "--config", "./vlmbatch.toml").returncode == 0
    assert run("run", "photos", VLMBATCH_CONFIG="vlmbatch.toml").returncode == 0
    assert run("run", "photos").returncode == 2


@pytest.mark.parametrize("link", [False, True])
def test_the_own_file_in_the_current_folder_is_trusted_and_read_once(
    photos: Photos, monkeypatch: pytest.MonkeyPatch, link: bool
) -> None:
    """./vlmbatch.toml counts as the user's own file if it is the same file, also through a link."""
    photos(1)
    mine = own('base-url = "http://127.0.0.1:9"\ngive-up-after = 0\n')
    if link:
        Path("vlmbatch.toml").symlink_to("home/vlmbatch/vlmbatch.toml")
    else:
        monkeypatch.chdir("home/vlmbatch")
    done = called("models", **mine)
    assert done.returncode == 4
    assert done.stderr.splitlines()[0].endswith("home/vlmbatch/vlmbatch.toml")
    assert " and " not in done.stderr.splitlines()[0]


def test_a_link_to_another_file_is_not_trusted(photos: Photos) -> None:
    """A ./vlmbatch.toml that is a link to some other file of the user is not trusted."""
    photos(1)
    Path("other.toml").write_text('base-url = "http://127.0.0.1:9"')
    Path("vlmbatch.toml").symlink_to("other.toml")
    done = called("models")
    assert (done.returncode, "./vlmbatch.toml sets base-url" in done.stderr) == (2, True)


@pytest.mark.parametrize("variables", [{"XDG_CONFIG_HOME": "home"}, {"XDG_CONFIG_HOME": "", "HOME": "home"}])
def test_a_folder_cannot_play_the_home(photos: Photos, variables: dict[str, str]) -> None:
    """A relative XDG_CONFIG_HOME or HOME does not make a file below the current folder the user's own."""
    photos(1)
    own('base-url = "http://127.0.0.1:9"\ngive-up-after = 0\n')
    Path("home/.config").symlink_to(".")
    done = called("run", "photos", "--dry-run", "-b", "ollama", **variables)
    assert (done.returncode, "settings from" in done.stderr) == (0, False), done.stderr


@pytest.mark.parametrize("backend", ["litellm", "openrouter", "llama-cpp"])
def test_a_planted_model_chooses_no_provider_and_no_file(photos: Photos, backend: str) -> None:
    """A model of ./vlmbatch.toml is refused where it would choose a provider, or a file that is loaded."""
    photos(1)
    planted('model = "evil/model"')
    refused = called("run", "photos", "--dry-run", "-b", backend, OPENROUTER_API_KEY=KEY)
    assert refused.returncode == 2
    assert f"./vlmbatch.toml sets model, but with --backend {backend} the model " in refused.stderr
    named = called("run", "photos", "--dry-run", "-b", backend, "-m", "gpt-4o", OPENROUTER_API_KEY=KEY)
    assert "sets model" not in named.stderr


@pytest.mark.parametrize(
    "model",
    ["qwen2.5vl", "qwen2.5vl:7b", "Qwen/Qwen2.5-VL-7B-Instruct", "qwen2.5-vl-7b@q4_k_m", "me/llava:13b-v1.6"],
)
def test_a_plain_name_of_a_model_may_be_in_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    """The usual names of models at Ollama, vLLM and LM Studio are accepted in ./vlmbatch.toml."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", "/nonexistent")
    planted(f'model = "{model}"')
    assert read_settings(None).values == {"model": model}


@pytest.mark.parametrize(
    "model",
    [
        *("/etc/passwd", "./model", "../model", "~/model", "a/b/c", "x.gguf", "X.GGUF:Q4", "a b", ""),
        *("http://h/m", "hf.co/m", "HuggingFace.co/m", "kimi-k2:1t-cloud", "glm-4.6:CLOUD", "a\nb", "m\n"),
    ],
)
def test_another_name_of_a_model_may_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str) -> None:
    """Paths, addresses, downloads and models in Ollama's cloud are refused in ./vlmbatch.toml."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", "/nonexistent")
    planted(f"model = {json.dumps(model)}")
    with pytest.raises(ConfigError, match="sets model = "):
        read_settings(None)


def test_what_a_folder_may_set() -> None:
    """These are all options that ./vlmbatch.toml may set; a new option is protected until it is declared."""
    assert {o.key for o in options() if o.spec.harmless} == {
        *("include", "exclude", "limit", "prompt", "system", "max-tokens", "temperature", "seed", "num-ctx"),
        *("schema", "logprobs", "accept", "max-size", "max-pixels", "image-tokens", "quality", "model"),
        *(
            "keep-alive",
            "option",
            "allow-empty",
            "dedupe",
            "concurrency",
            "rpm",
            "timeout",
            "retries",
            "until",
        ),
        *("max-duration", "drain", "verbose", "format"),
    }


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_can_change_is_refused(photos: Photos, mode: int) -> None:
    """A trusted file that others can write to exits with 2 for protected keys, and not for harmless ones."""
    photos(1)
    mine = own('base-url = "http://127.0.0.1:9"\ngive-up-after = 0\n', mode)
    file = Path("home/vlmbatch/vlmbatch.toml")
    if not mode & 0o002:
        os.chown(file, -1, _foreign_group())
    for named in ((), ("--config", str(file))):
        done = called("models", *named, **mine)
        assert done.returncode == 2
        assert "sets base-url, give-up-after, but other users can change it" in done.stderr
        assert "chmod go-w " in done.stderr
    own("timeout = 5", mode)
    assert called("run", "photos", "--dry-run", "-b", "ollama", **mine).returncode == 0


def _foreign_group() -> int:
    """A group that is not the private group of this user; skips the test if it is in no such group."""
    if os.geteuid() == 0:
        return OTHER_USER
    groups = [group for group in os.getgroups() if group != os.geteuid()]
    return groups[0] if groups else pytest.skip("this user is in no other group")


def test_the_private_group_of_the_user_may_write(photos: Photos) -> None:
    """A file that the user's private group can write is accepted: umask 002 makes such files."""
    photos(1)
    mine = own('base-url = "http://127.0.0.1:9"\ngive-up-after = 0\n', 0o664)
    if Path("home/vlmbatch/vlmbatch.toml").stat().st_gid != os.geteuid():
        pytest.skip("this user has no private group")
    assert called("models", **mine).returncode == 4


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_another_user_is_refused(photos: Photos) -> None:
    """A trusted file of another user exits with 2 for protected keys, and the message says how to own it."""
    photos(1)
    mine = own('base-url = "http://127.0.0.1:9"\ngive-up-after = 0\n')
    os.chown("home/vlmbatch/vlmbatch.toml", OTHER_USER, OTHER_USER)
    done = called("models", **mine)
    assert done.returncode == 2
    assert (
        f"but it belongs to another user (number {OTHER_USER}); make it yours with: chown 0 " in done.stderr
    )


@pytest.mark.parametrize(
    "content",
    [
        f'api-key = "{KEY}"',
        f'header = "Authorization: Bearer {KEY}"',
        f'base-url = "http://me:{KEY}@127.0.0.1:9"',
        f'fallback = "vllm:m@http://me:{KEY}@127.0.0.1:9/v1"',
    ],
)
def test_a_key_that_others_can_read_is_a_warning(photos: Photos, content: str) -> None:
    """A file with a key that others can read gets a warning without the key, also with -q, and no error."""
    photos(1)
    asking = ("run", "photos", "--dry-run", "-b", "ollama")
    open_to_all = called(*asking, **own(content, 0o644))
    name = content.partition(" ")[0]
    assert open_to_all.returncode == 0, open_to_all.stderr
    assert f"other users can read {name} in " in open_to_all.stderr.splitlines()[1]
    assert "chmod 600 " in open_to_all.stderr.splitlines()[1]
    assert open_to_all.stderr.splitlines()[1] in called(*asking, "-q", **own(content, 0o644)).stderr
    assert KEY not in open_to_all.stderr
    assert "other users" not in called(*asking, **own(content, 0o600)).stderr
    assert "other users" not in called(*asking, **own('base-url = "http://127.0.0.1:9"', 0o644)).stderr


def test_a_pipe_can_be_the_file(photos: Photos, endpoint: Endpoint) -> None:
    """--config reads a pipe: /dev/stdin, or the <(...) of a shell."""
    photos(1)
    content = f'backend = "ollama"\nbase-url = "{endpoint.url}"\n'
    done = run("run", "photos", "--config", "/dev/stdin", stdin=content.encode())
    assert done.returncode == 0, done.stderr
    shell = ("bash", "-c", f"{' '.join(COMMAND)} run photos --config <(echo '{content}')")
    assert run(command=shell).returncode == 0


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("a" + ".a" * 16_000 + " = 1", "dots"),
        ("[a" + ".a" * 16_000 + "]\nb.c = 1", "dots"),
        ("limit = " + "[" * 50_000, "nested too deeply"),
        ("extra-body = " + "{a=" * 5_000, "nested too deeply"),
        ('"=".a' + ".a" * 16_000 + " = 1", "dots"),
        ("'='.a" + ".a" * 16_000 + " = 1", "dots"),
        ("extra-body = {a" + ".a" * 16_000 + " = 1}", "dots"),
        ('system = {a = """x"""", a' + ".a" * 16_000 + " = 1}", "dots"),
        ("limit = " + "9" * 5_000, "number of thousands of digits; write a smaller one"),
        ("limit = 0x" + "f" * 5_000, "number of thousands of digits; write a smaller one"),
        ("limit = " + "9" * 400, "limit takes a number"),
        ("#" * (LARGEST_BYTES + 1), "is larger than"),
    ],
)
def test_a_hostile_file_is_an_error_in_little_memory(tmp_path: Path, content: str, told: str) -> None:
    """A file that would make a TOML parser use much memory or stack is an error, before it is parsed."""
    file = tmp_path / "hostile.toml"
    file.write_text(content)
    tracemalloc.start()
    with pytest.raises(ConfigError, match=told):
        read_settings(str(file))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 50_000_000
