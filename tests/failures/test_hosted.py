"""How servers refuse a key, a picture, an account that is used up, and a disk that they do not share."""

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
    """A key that is not known ends the run, whatever its status; the error says what to set."""
    done = await failing.ends(f"wrong_key:{number}", "auth")
    assert "set --api-key, or OPENAI_API_KEY" in str(done.error)
    assert not set('{}"') & set(str(done.error))


@pytest.mark.parametrize("number", range(1, 5))
async def test_content_filter(failing: Failing, number: int) -> None:
    """A picture that a filter refuses fails alone, also with the 403 of OpenRouter's moderation."""
    done = await failing.fails_alone(f"moderation:{number}", "refused")
    failure = next(r.failure for r in done.results if r.failure)
    assert "a content filter refuses this picture or prompt" in failure.message


@pytest.mark.parametrize("number", range(1, 5))
async def test_exhausted_quota(failing: Failing, number: int) -> None:
    """An account that is used up ends the run at once, also with the 429 that else means to wait."""
    done = await failing.ends(f"no_credits:{number}", "quota")
    assert "the account is used up" in str(done.error)


def test_exit_code_of_each(photos: Photos) -> None:
    """A wrong key and an empty account are exit code 2, a filtered picture is 3, each in its words."""
    photos(1)
    for mode, code, told in (
        ("wrong_key:2", 2, "does not accept the key"),
        ("no_credits:2", 2, "the account is used up"),
        ("moderation:3", 3, "content filter"),
    ):
        with Endpoint(script=lambda request, mode=mode: mode) as endpoint:
            done = run("run", "photos", "-b", "openrouter", "--base-url", endpoint.url, "-m", "tiny-vision")
        assert done.returncode == code, done.stderr
        assert told in " ".join((done.stderr + done.stdout).split())


def test_what_a_provider_behind_openrouter_says(photos: Photos) -> None:
    """Of an error that OpenRouter passes on, people read the provider's own words."""
    photos(1)
    with Endpoint(script=["moderation:4"]) as endpoint:
        done = run("run", "photos", "-b", "openrouter", "--base-url", endpoint.url, "-m", "tiny-vision")
    assert "Provider returned error: No. (HTTP 400)" in done.stdout


@pytest.mark.parametrize(
    ("media", "told"),
    [(None, "cannot load local files"), ("elsewhere", "must be a subpath of")],
)
async def test_a_disk_that_is_not_shared(
    failing: Failing, tmp_path: Path, media: str | None, told: str
) -> None:
    """A server that does not read files, or not these, ends the run; the error names its flag and ours."""
    failing.endpoint.media = tmp_path / media if media else None
    done = await failing.run(file_urls=True)
    assert isinstance(done.error, FatalBackendError)
    assert (done.error.kind, done.error.exit_code, done.results) == ("bad_config", 2, [])
    words = str(done.error)
    assert told in words.lower()
    assert "--allowed-local-media-path" in words
    assert "--file-urls" in words
