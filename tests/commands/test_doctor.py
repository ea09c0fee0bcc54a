"""The checks of this machine, and the run that doctor suggests at the end."""

import shlex
import sys
from pathlib import Path

import pytest
from endpoint import Endpoint

from vlmbatch.commands.doctor import Finding, check_up
from vlmbatch.commands.doctor.finding import wrong
from vlmbatch.commands.doctor.machine import accelerator, formats
from vlmbatch.config import RunConfig
from vlmbatch.errors import ConfigError, FatalBackendError, TransientError, UnreachableError
from vlmbatch.imaging.capabilities import Support, drawn_shapes
from vlmbatch.imaging.prepare import inspect

BARE = Support(pillow="13.0.0", avif=False, heic=False, tiff=False, fast=False)


async def last(config: RunConfig) -> Finding:
    """The finding that names the run to type."""
    return [finding async for finding in check_up(config, None)][-1]


def test_a_missing_extra_is_a_warning_with_its_command() -> None:
    """Each missing extra is a warning with exit code 0 and the command that installs it."""
    assert formats(BARE).mark == accelerator(BARE).mark == "warning"
    assert 'pip install "vlmbatch[heic]"' in (formats(BARE).advice or "")
    assert 'pip install "vlmbatch[tiff]"' in (formats(BARE).advice or "")
    assert 'pip install "vlmbatch[fast]"' in (accelerator(BARE).advice or "")
    assert formats(BARE).told.endswith("not AVIF, HEIC, scientific TIFF")
    assert formats(BARE).exit_code == 0


def test_the_install_command_is_for_the_environment_of_vlmbatch(monkeypatch: pytest.MonkeyPatch) -> None:
    """If another pip is first on PATH, or uv made the environment, the advice names the right command."""
    here = shlex.quote(sys.executable)
    monkeypatch.setenv("PATH", "")
    assert accelerator(BARE).advice == f'{here} -m pip install "vlmbatch[fast]"'
    monkeypatch.setitem(sys.modules, "pip", None)
    assert accelerator(BARE).advice == f'uv pip install --python {here} "vlmbatch[fast]"'


def test_in_an_active_environment_pip_is_enough(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """If the first pip on PATH is beside the Python of vlmbatch, the advice is plain `pip install`."""
    python, pip = tmp_path / "python", tmp_path / "pip"
    pip.touch(mode=0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setitem(sys.modules, "pip", sys)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert accelerator(BARE).advice == 'pip install "vlmbatch[fast]"'


def test_a_wrong_finding_has_its_code_and_advice() -> None:
    """A temporary failure has exit code 4, any other 2; the text after the first semicolon is the advice."""
    assert wrong("x", UnreachableError("away; start it")).exit_code == 4
    assert wrong("x", TransientError("slow")).exit_code == 4
    assert wrong("x", FatalBackendError("no key")).exit_code == 2
    found = wrong("x", ConfigError("no; do this; or that"))
    assert (found.told, found.advice, found.exit_code) == ("no", "do this; or that", 2)


def test_the_drawn_picture() -> None:
    """The drawn picture is larger than the size that is sent, so that the check includes shrinking."""
    header = inspect(drawn_shapes())
    assert (header.format, header.width, header.height) == ("PNG", 1280, 960)


async def test_the_run_to_type_has_the_options_of_the_check(endpoint: Endpoint) -> None:
    """The run to type has the options that shape an answer, quoted for a shell, but no key or password."""
    config = RunConfig.of(
        ".",
        base_url=endpoint.url.replace("//", "//me:secret@"),
        model="tiny-vision",
        api_key="k-secret",
        prompt="What's here?",
        num_ctx=4096,
        max_size="auto",
    )
    words = shlex.split((await last(config)).told)
    assert words == [
        *("vlmbatch", "run", "FOLDER", "--backend", "ollama", "--model", "tiny-vision"),
        *("--base-url", endpoint.url, "--prompt", "What's here?", "--num-ctx", "4096", "--max-size", "auto"),
        *("--output", "answers.jsonl"),
    ]


async def test_no_run_to_type_after_a_failed_check(endpoint: Endpoint) -> None:
    """The last finding is skipped if no endpoint passed its checks."""
    assert (await last(RunConfig.of(".", base_url=endpoint.url, model="nobody"))).mark == "skipped"


async def test_a_picture_that_does_not_fit_is_sent_smaller_as_in_a_run(endpoint: Endpoint) -> None:
    """Doctor agrees with run: it says that the usual size does not fit, and sends what a run would send."""
    endpoint.counts, endpoint.context = "patches", 300
    config = RunConfig.of(".", backend="vllm", base_url=endpoint.url, model="tiny-vision")
    findings = [finding async for finding in check_up(config, None)]
    told = [found for found in findings if found.check == "one image"]
    assert [found.mark for found in told] == ["warning", "ok"]
    picture = endpoint.questions[-1].pictures[0]
    assert picture.width < 1024
    assert "a picture of 1024x768 does not fit" in told[0].told
    assert f"{picture.width}x{picture.height}" in told[0].told
    assert "--max-model-len" in (told[0].advice or "")
    assert findings[-1].mark == "ok"


async def test_fallbacks_are_checked_too(endpoint: Endpoint) -> None:
    """A fallback has its own findings, and the run to type names it with --fallback, not with --base-url."""
    with Endpoint() as other:
        fallback = f"vllm:tiny-vision@{other.url}/v1"
        config = RunConfig.of(
            ".", backend="ollama", base_url=endpoint.url, model="tiny-vision", fallback=fallback
        )
        findings = [finding async for finding in check_up(config, None)]
    assert other.questions
    words = shlex.split(findings[-1].told)
    assert words.count("--base-url") == 1
    assert words[words.index("--fallback") + 1] == fallback
