"""The files of an embedded model: on this disk, in the hub's cache, on a hub."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from backend_contract import closed_port

from vlmbatch.backends.llama_cpp.gguf import choose_files, find_files, parts_of
from vlmbatch.errors import ConfigError

BARTOWSKI = (
    "README.md",
    "mmproj-m-bf16.gguf",
    "mmproj-m-f16.gguf",
    "m-IQ2_M.gguf",
    "m-Q4_K_M.gguf",
    "m-Q8_0.gguf",
)
SPLIT = ("Q8_0/m-Q8_0-00001-of-00002.gguf", "Q8_0/m-Q8_0-00002-of-00002.gguf", "mmproj-F16.gguf")


@pytest.mark.parametrize(
    ("names", "quant", "chosen"),
    [
        (BARTOWSKI, "", ("m-Q4_K_M.gguf", "mmproj-m-f16.gguf")),
        (BARTOWSKI, "Q8_0", ("m-Q8_0.gguf", "mmproj-m-f16.gguf")),
        (BARTOWSKI, "iq2_m", ("m-IQ2_M.gguf", "mmproj-m-f16.gguf")),
        (SPLIT, "", ("Q8_0/m-Q8_0-00001-of-00002.gguf", "mmproj-F16.gguf")),
        (("m.gguf", "mmproj-q8_0.gguf"), "", ("m.gguf", "mmproj-q8_0.gguf")),
        (("model-f16.gguf", "m.MMPROJ.gguf"), "", ("model-f16.gguf", "m.MMPROJ.gguf")),
    ],
)
def test_files_are_chosen(names: tuple[str, ...], quant: str, chosen: tuple[str, str]) -> None:
    """The requested quantisation is chosen, else Q4_K_M, else the first; the F16 projector is preferred."""
    assert choose_files(names, quant, "o/r") == chosen
    assert choose_files(reversed(names), quant, "o/r") == chosen


@pytest.mark.parametrize(
    ("names", "quant", "words"),
    [
        (BARTOWSKI, "Q5_K_M", r"o/r has no Q5_K_M \.gguf model; it has: m-IQ2_M\.gguf, m-Q4_K_M"),
        (("m.safetensors",), "", r"o/r has no {1,2}\.gguf model; it has: none"),
        (("mmproj.gguf",), "", "it has: none"),
        (("m.gguf",), "", "cannot see"),
    ],
)
def test_unsuitable_repository(names: tuple[str, ...], quant: str, words: str) -> None:
    """The error names the file that a repository lacks, and lists the files that it has."""
    with pytest.raises(ConfigError, match=words):
        choose_files(names, quant, "o/r")


def test_model_in_parts_is_taken_whole() -> None:
    """All parts of a split model are used, and no part of another model."""
    others = ("Q8_0/m-Q8_0-00001-of-00003.gguf", "m-Q8_0-00001-of-00002.gguf", "m.gguf")
    assert parts_of(SPLIT[0], [*others, *reversed(SPLIT)]) == list(SPLIT[:2])
    assert parts_of("m.gguf", [*SPLIT, *others]) == ["m.gguf"]


def test_demonstration_model_is_shipped() -> None:
    """Without a name the demonstration model is used, and its files exist."""
    files = find_files(None, None)
    assert files.demo
    assert files.model.is_file()
    assert files.mmproj.is_file()


def test_projector_beside_the_model(tmp_path: Path) -> None:
    """The only mmproj file in a model's folder is its projector; with two, --mmproj is required."""
    for name in ("m-Q4.gguf", "mmproj-m.gguf"):
        (tmp_path / name).touch()
    files = find_files(str(tmp_path / "m-Q4.gguf"), None)
    assert (files.name, files.mmproj.name, files.demo) == ("m-Q4", "mmproj-m.gguf", False)
    (tmp_path / "mmproj-other.gguf").touch()
    with pytest.raises(ConfigError, match="--mmproj"):
        find_files(str(tmp_path / "m-Q4.gguf"), None)
    assert (
        find_files(str(tmp_path / "m-Q4.gguf"), str(tmp_path / "mmproj-other.gguf")).mmproj.stem
        == "mmproj-other"
    )


@pytest.mark.parametrize(
    ("model", "mmproj", "words"),
    [
        ("none.gguf", None, r"--model none\.gguf is not a file"),
        ("owner/repo", None, r"is not a file; .*hf\.co/OWNER/REPO"),
        (".", None, r"--model \. is not a file"),
        ("m.gguf", None, "needs its vision projector; add --mmproj"),
        ("m.gguf", "none.gguf", r"--mmproj none\.gguf is not a file"),
        (None, "mmproj.gguf", "needs the model that it belongs to; add --model"),
    ],
)
def test_file_that_is_not_there(
    model: str | None, mmproj: str | None, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error for a missing or unnamed file names its flag."""
    monkeypatch.chdir(tmp_path)
    Path("m.gguf").touch()
    with pytest.raises(ConfigError, match=words):
        find_files(model, mmproj)


def test_digest_identifies_weights(tmp_path: Path) -> None:
    """The same two files have the same digest in any folder; a changed file has another digest."""
    demo = find_files(None, None)
    for name in ("m.gguf", "mmproj.gguf"):
        source = demo.mmproj if "mmproj" in name else demo.model
        (tmp_path / name).write_bytes(source.read_bytes())
    copy = find_files(str(tmp_path / "m.gguf"), None)
    assert copy.digest == demo.digest
    with copy.mmproj.open("ab") as file:
        file.write(b"\0")
    assert copy.digest != demo.digest


def found(name: str, cache: Path, hub: str, **environ: str) -> str:
    """The output of find_files for a model of this hub, in its own process: the hub's client reads the
    address of the hub at its import."""
    code = (
        "import sys; from vlmbatch.backends.llama_cpp.gguf import find_files\n"
        "try: files = find_files(sys.argv[1], None); print(files.name, files.model, files.mmproj)\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    names = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")
    settings = {
        "HF_ENDPOINT": hub,
        "HF_HOME": str(cache),
        "HF_HUB_CACHE": str(cache),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_TOKEN": "",
    }
    done = subprocess.run(
        [sys.executable, "-c", code, name],
        env={**os.environ, **dict.fromkeys(names, ""), **settings, **environ},
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
    )
    return done.stdout


def test_hub_that_cannot_be_reached(tmp_path: Path) -> None:
    """The error for an unreachable hub without an earlier download says what to do instead."""
    with closed_port() as hub:
        told = found("hf.co/owner/repo:Q8_0", tmp_path, hub)
    assert told.startswith(
        "ConfigError --model hf.co/owner/repo:Q8_0: the Hugging Face hub cannot be reached"
    )
    assert "--model PATH.gguf --mmproj PATH.gguf" in told


def test_name_that_no_hub_has(tmp_path: Path) -> None:
    """A name that is not OWNER/REPO is an error without a request to the hub."""
    with closed_port() as hub:
        assert "Hugging Face has no such model" in found("hf.co/owner/repo/more", tmp_path, hub)


@contextmanager
def hub_with(files: dict[str, bytes]) -> Iterator[tuple[str, list[str]]]:
    """A hub with the repository owner/repo: its URL, and the paths of its requests."""
    asked: list[str] = []
    commit = "0123456789abcdef0123456789abcdef01234567"

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            _, _, name = self.path.partition("/owner/repo/resolve/main/")
            if self.path == "/api/models/owner/repo":
                siblings = [{"rfilename": file} for file in files]
                self.answer(json.dumps({"id": "owner/repo", "sha": commit, "siblings": siblings}).encode())
            elif name in files:
                self.answer(files[name])
            else:
                self.send_response(404)
                self.send_header("X-Error-Code", "RepoNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()

        do_HEAD = do_GET

        def answer(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("X-Repo-Commit", commit)
            self.send_header("ETag", f'"{hash(body):x}"')
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class's name
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()


def test_download_and_cache(tmp_path: Path) -> None:
    """A hub's model is downloaded with all its parts, and found in the cache when the hub is down."""
    with hub_with({name: name.encode() for name in (*SPLIT, "README.md")}) as (hub, asked):
        told = found("https://huggingface.co/owner/repo", tmp_path, hub)
    name, model, mmproj = told.split()
    assert name == "hf.co/owner/repo"
    assert Path(model).read_text() == SPLIT[0]
    assert (Path(model).parent / Path(SPLIT[1]).name).read_text() == SPLIT[1]
    assert Path(mmproj).read_text() == SPLIT[2]
    assert not any("README" in path for path in asked)
    assert found("hf.co/owner/repo:q8_0", tmp_path, hub).split()[1:] == [model, mmproj]
    assert found("hf.co/owner/repo", tmp_path, hub, HF_HUB_OFFLINE="1").split()[1:] == [model, mmproj]
    assert "cannot be reached" in found("hf.co/owner/repo:Q4_0", tmp_path, hub)


def test_repository_that_the_hub_does_not_have(tmp_path: Path) -> None:
    """The hub's 404 is reported as a wrong name, not as an outage."""
    with hub_with({}) as (hub, _):
        assert "no such model, or the model is private" in found("hf.co/owner/other", tmp_path, hub)
