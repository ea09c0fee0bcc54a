"""No output has a secret in another form either: encoded, escaped, in another case, or cut short."""

import json
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
from command import records, run
from hypothesis import given
from hypothesis import strategies as st
from replying import OLLAMA, OPENAI, WIRES, Raw, as_json, chat, replying

from vlmbatch.backends.http.auth import Credentials

Photos = Callable[..., Path]
KEY = "sk-proj-Ab3/d+f&g~QxYz0192"
START = KEY[:10].lower()
"""It must be in no output, in whatever case."""
FORMS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "upper": str.upper,
    "lower": str.lower,
    "url": lambda text: quote(text, safe=""),
    "url-lower": lambda text: quote(text, safe="").replace("%2F", "%2f").replace("%2B", "%2b"),
    "url-plus": quote_plus,
    "url-whole": lambda text: "".join(f"%{byte:02X}" for byte in text.encode()),
    "base64": lambda text: b64encode(text.encode()).decode(),
    "base64-url": lambda text: urlsafe_b64encode(text.encode()).decode(),
    "base64-bare": lambda text: b64encode(text.encode()).decode().rstrip("="),
    "base64-login": lambda text: b64encode(f"me:{text}".encode()).decode(),
    "base64-inside": lambda text: b64encode(f"token={text}!".encode()).decode(),
    "json": lambda text: text.replace("/", "\\/").replace("&", "\\u0026"),
    "json-whole": lambda text: "".join(f"\\u{ord(each):04x}" for each in text),
    "json-twice": lambda text: text.replace("/", "\\\\/").replace("&", "\\\\u0026"),
    "html": lambda text: text.replace("&", "&amp;"),
    "html-numbers": lambda text: text.replace("+", "&#43;").replace("~", "&#x7e;"),
    "html-whole": lambda text: "".join(f"&#{ord(each)};" for each in text),
    "cut": lambda text: f"{text[:10]}*****{text[-4:]}",
    "cut-long": lambda text: f"{text[:14]}...",
}
WORDS = [START, "sk-proj", *(FORMS[name](KEY)[:16].lower() for name in FORMS if name != "plain")]


def everything(done_out: str, done_err: str) -> str:
    """The whole output of a command in lower case: its streams and its files."""
    files = (path.read_text() for path in Path().iterdir() if path.is_file())
    return "\n".join(chain((done_out, done_err), files)).lower()


@pytest.mark.parametrize("form", FORMS)
def test_each_form_of_a_key_is_masked(form: str) -> None:
    """A key is masked in each form, in a server's words and in those of vlmbatch."""
    credentials = Credentials.of("http://h", KEY)
    for masked in (credentials.masked, credentials.without_keys):
        told = masked(f"wrong key: {FORMS[form](KEY)}, try again")
        assert told.startswith("wrong key: ")
        assert told.endswith(", try again")
        assert "[key]" in told
        assert not [word for word in WORDS if word in told.lower()]


@pytest.mark.parametrize("form", [name for name in FORMS if not name.startswith("cut")])
def test_each_form_of_a_password_is_masked(form: str) -> None:
    """A password of a URL, a token in its query, and a header that holds a secret are masked, too."""
    for credentials in (
        Credentials.of(f"http://me:{quote(KEY, safe='')}@h", None),
        Credentials.of(f"http://h?api-version=2026-11-01&sig={quote(KEY, safe='')}", None),
        Credentials.of("http://h", None, (("X-Api-Key", KEY),)),
        Credentials.of("http://h", None, more_keys=(KEY,)),
    ):
        told = credentials.without_keys(f"wrong key: {FORMS[form](KEY)}, try again")
        assert "[key]" in told
        assert not [word for word in WORDS if word in told.lower()]


def test_the_login_of_a_url_is_masked_in_base64() -> None:
    """The value of the Authorization header for a user and a password is masked, with and without padding."""
    credentials = Credentials.of("http://me:hunter2-9@h", None)
    for token in (b64encode(b"me:hunter2-9").decode(), urlsafe_b64encode(b"me:hunter2-9").decode()):
        assert credentials.without_keys(f"Basic {token} is wrong") == "Basic [key] is wrong"
        assert credentials.without_keys(f"Basic {token.rstrip('=')} is wrong") == "Basic [key] is wrong"


@pytest.mark.parametrize(
    "text",
    [
        "the endpoint refuses this image, and accepts another one: 2026-11-01 is no application/json",
        "sk-proj- is a prefix; a project has 3/d pictures",
        "".join(map(chr, range(32, 127))),
    ],
)
def test_ordinary_text_stays(text: str) -> None:
    """Ordinary words are not masked, although short secrets and values of harmless headers contain them."""
    headers = (("X-Title", "image captions"), ("Accept", "application/json"), ("Authorization", "Bearer abc"))
    credentials = Credentials.of("http://me:pictures@h?api-version=2026-11-01", "3/d", headers)
    assert credentials.without_keys(text.replace("pictures", "[key]")) == text.replace("pictures", "[key]")
    assert Credentials.of("http://h", KEY).masked(text) == text


@given(
    st.text(st.characters(codec="utf-8"), min_size=8, max_size=40), st.text(max_size=40), st.text(max_size=40)
)
def test_any_password_is_found(password: str, before: str, after: str) -> None:
    """A password of any characters is masked in any text, plain, URL-encoded and in base64."""
    masked = Credentials.of("http://h", None, more_keys=(password,)).without_keys
    for form in ("plain", "url", "base64", "base64-url"):
        told = FORMS[form](password)
        assert told not in masked(f"{before} {told} {after}") or told in "[key]"


@pytest.mark.parametrize("form", ["plain", "base64"])
@pytest.mark.parametrize("backend", ["ollama", "vllm"])
@pytest.mark.parametrize("flags", [("-v",), ("--log-json",)], ids=str)
def test_a_model_that_is_named_like_the_key(
    photos: Photos, form: str, backend: str, flags: tuple[str, ...]
) -> None:
    """A server that lists a model named like the key puts the key into no output of a command."""
    photos(2)
    name = FORMS[form](KEY)
    lists = {
        "/v1/models": {"data": [{"id": name, "root": name, "owned_by": name}]},
        "/api/tags": {"models": [{"name": name, "digest": name, "details": {"parameter_size": name}}]},
        "/api/show": {"capabilities": ["vision"], "details": {"quantization_level": name}},
        "/api/version": {"version": name},
        "/version": {"version": name},
    }

    def reply(path: str, text: str) -> Raw | None:
        if path in (OLLAMA, OPENAI):
            return as_json(chat(path, text, name if text == "orange" else "stop") | {"model": name})
        return as_json(lists[path]) if path in lists else None

    reports = ("--summary", "s.json", "--metrics-file", "m.prom", "-o", "o.jsonl")
    with replying(reply) as server:
        where = ("-b", backend, "--base-url", server.url)
        done = run("run", "photos", *where, *flags, *reports, VLMBATCH_API_KEY=KEY)
        others = [
            run(*words, VLMBATCH_API_KEY=KEY)
            for words in (("models", *where), ("models", "--json", *where), ("doctor", *where))
            if flags == ("-v",)
        ]
    assert done.returncode == 0, done.stderr
    assert len(records(Path("o.jsonl").read_text())) == 2
    left = everything(done.stdout, done.stderr) + "".join(o.stdout + o.stderr for o in others).lower()
    assert "[key]" in left
    assert not [word for word in WORDS if word in left]


@pytest.mark.parametrize("backend", WIRES)
def test_a_key_in_a_schema_flaw_is_masked_and_in_an_answer_it_stays(photos: Photos, backend: str) -> None:
    """The message about an answer that breaks --schema has no key; the answer itself is data and is kept."""
    photos(2)
    schema = '{"type": "object", "additionalProperties": false, "properties": {"legs": {"type": "integer"}}}'
    answer = json.dumps({KEY: 1, "legs": 4})

    def reply(path: str, text: str) -> Raw | None:
        return as_json(chat(path, answer)) if path in (OLLAMA, OPENAI) and text != "orange" else None

    with replying(reply) as server:
        where = ("-b", backend, "--base-url", server.url, "-m", "tiny", "--schema", schema, "-o", "o.jsonl")
        done = run("run", "photos", *where, "-v", VLMBATCH_API_KEY=KEY)
    assert done.returncode == 3, done.stderr
    assert START not in done.stderr.lower()
    errors = [record["error"] for record in records(Path("o.jsonl").read_text())]
    assert [error["kind"] for error in errors] == ["bad_schema"] * 2
    assert all("[key]" in error["message"] for error in errors)
    assert [error["partial"] for error in errors] == [answer] * 2


@pytest.mark.parametrize("form", FORMS)
def test_a_refusal_that_repeats_the_key(photos: Photos, form: str) -> None:
    """A server that quotes the key in a refusal puts it into no output of the run."""
    photos(1)
    message = {"error": {"message": f"Incorrect API key provided: {FORMS[form](KEY)}.", "code": "odd"}}

    def reply(path: str, text: str) -> Raw | None:
        return as_json(message, 400) if path == OPENAI and text != "orange" else None

    with replying(reply) as server:
        where = ("-b", "vllm", "--base-url", server.url, "-m", "tiny", "-o", "o.jsonl", "--summary", "s.json")
        done = run("run", "photos", *where, "-v", VLMBATCH_API_KEY=KEY)
    left = everything(done.stdout, done.stderr)
    assert "api key provided: " in left
    assert "[key]" in left
    assert not [word for word in WORDS if word in left]
