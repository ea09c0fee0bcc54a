"""The mistakes of a first run get a message that says what to type."""

from collections.abc import Callable
from pathlib import Path

import pytest
from command import run
from endpoint import Endpoint, Model
from inside import called

Photos = Callable[..., Path]


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (
            ("--base-url", "localhost:8000"),
            "--base-url localhost:8000 is not a URL; write for example http://localhost:8000/v1",
        ),
        (("--base-url", "gpu1:11434"), "write for example http://gpu1:11434\n"),
        (("--base-url", "gpu1:80/v1"), "write for example http://gpu1:80/v1\n"),
        (
            ("--base-url", "me:s3cret@gpu1:80"),
            "--base-url gpu1:80 is not a URL; write for example http://gpu1:80",
        ),
        (
            ("--base-url", "http:/x"),
            "--base-url http:/x is not a URL; write for example http://127.0.0.1:8000",
        ),
        (
            ("--base-url", "http://me:s3cret@gpu1:80/v1,http://gpu2:80/v1"),
            "holds several URLs; write --base-url before each URL",
        ),
        (("--base-url", "http://gpu1:80 http://gpu2:80"), "holds several URLs"),
        (("--base-url", "urls.txt"), "--base-url urls.txt is neither a URL nor a file that exists; "),
        (("-b", "olama"), "openrouter, llama-cpp, litellm; did you mean ollama?"),
        (("-b", "x"), "--backend x is not known; choose one of auto, "),
    ],
)
def test_a_wrong_endpoint_is_corrected(photos: Photos, args: tuple[str, ...], told: str) -> None:
    """A URL without its scheme, a missing file and a misspelt backend exit with 2 and a suggestion."""
    photos(1)
    done = called("run", "photos", *args)
    assert done.returncode == 2
    assert told in done.stderr
    assert "s3cret" not in done.stderr


def test_an_unusable_model_says_what_to_type(photos: Photos) -> None:
    """A wrong name has the nearest names, a blind model asks for another one, and nothing begins."""
    photos(1)
    with Endpoint(models={"tiny-vision": Model(), "tiny-text": Model(vision=False)}) as endpoint:
        asked = ("run", "photos", "-b", "ollama", "--base-url", endpoint.url)
        misspelt = run(*asked, "-m", "tiny-visoin")
        blind = run(*asked, "-m", "tiny-text")
    assert (misspelt.returncode, blind.returncode) == (2, 2)
    assert "has no model 'tiny-visoin'; nearest: tiny-vision:latest" in misspelt.stderr
    assert "cannot see images" in blind.stderr.splitlines()[-1]
    assert "choose a vision model with --model" in blind.stderr.splitlines()[-1]
