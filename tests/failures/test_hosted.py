"""Refusals of hosted servers: a wrong key, a filtered picture, a used-up account, a disk not shared."""

from collections.abc import Callable
from pathlib import Path

import pytest
from command import run
from endpoint import Endpoint
from failing import Failing

from vlmbatch.errors import FatalBackendError

Photos = Callable[..., Path]


@pytest.fixture
def failing(photos: Photos, endpoint: Endpoint) -> Failing:
    """Runs over six photos."""
    return Failing(photos, endpoint, "openai")


@pytest.mark.parametrize("number", range(1, 5))
async def test_wrong_key(failing: Failing, number: int) -> None:
    """An unknown key ends the run, whatever the status is, and the error says what to set."""
    done = await failing.ends(f"wrong_key:{number}", "auth")
    assert "set --api-key, or set OPENAI_API_KEY" in str(done.error)
    assert not set('{}"') & set(str(done.error))


@pytest.mark.parametrize("number", range(1, 5))
async def test_a_filtered_picture_fails_alone(failing: Failing, number: int) -> None:
    """A picture that a filter refuses fails alone, even with the 403 of OpenRouter's moderation."""
    done = await failing.fails_alone(f"moderation:{number}", "refused")
    failure = next(r.failure for r in done.results if r.failure)
    assert "a content filter refuses this image or prompt" in failure.message


@pytest.mark.parametrize("number", range(1, 5))
async def test_a_used_up_account_ends_the_run(failing: Failing, number: int) -> None:
    """A used-up account ends the run at once, even with a 429, which normally means to wait."""
    done = await failing.ends(f"no_credits:{number}", "quota")
    assert "the account has no credit left" in str(done.error)


def test_each_refusal_has_its_exit_code(photos: Photos) -> None:
    """A wrong key and a used-up account are exit code 2, a filtered picture is 3, each with its message."""
    photos(1)
    for mode, code, told in (
        ("wrong_key:2", 2, "does not accept the key"),
        ("no_credits:2", 2, "the account has no credit left"),
        ("moderation:3", 3, "content filter"),
    ):
        with Endpoint(script=lambda request, mode=mode: mode) as endpoint:
            done = run("run", "photos", "-b", "openrouter", "--base-url", endpoint.url, "-m", "tiny-vision")
        assert done.returncode == code, done.stderr
        assert told in " ".join((done.stderr + done.stdout).split())


def test_the_words_of_a_provider_behind_openrouter_are_shown(photos: Photos) -> None:
    """The message of an error that OpenRouter forwards contains the provider's own words."""
    photos(1)
    with Endpoint(script=["moderation:4"]) as endpoint:
        done = run("run", "photos", "-b", "openrouter", "--base-url", endpoint.url, "-m", "tiny-vision")
    assert "Provider returned error: No. (HTTP 400)" in done.stdout


@pytest.mark.parametrize(
    ("media", "told"),
    [(None, "cannot load local files"), ("elsewhere", "must be a subpath of")],
)
async def test_a_disk_that_is_not_shared_ends_the_run(
    failing: Failing, tmp_path: Path, media: str | None, told: str
) -> None:
    """A server that may not read the files ends the run, and the error names its flag and ours."""
    failing.endpoint.media = tmp_path / media if media else None
    done = await failing.run(file_urls=True)
    assert isinstance(done.error, FatalBackendError)
    assert (done.error.kind, done.error.exit_code, done.results) == ("bad_config", 2, [])
    words = str(done.error)
    assert told in words.lower()
    assert "--allowed-local-media-path" in words
    assert "--file-urls" in words
