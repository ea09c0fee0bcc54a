"""The size at which a picture is sent: by options, by model, and in a whole run."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from endpoint import Endpoint
from endpoint.wires import Model
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image
from running import Ran, ran

from vlmbatch.backends.ollama.replies import architecture_of
from vlmbatch.config import RunConfig
from vlmbatch.config.groups import ImageOptions
from vlmbatch.config.spec import AUTO
from vlmbatch.errors import ConfigError
from vlmbatch.events import Notice
from vlmbatch.imaging.sizing import Sizing, sizing_of
from vlmbatch.pipeline.fingerprint import answer_settings
from vlmbatch.records import Endpoint as Found

Photos = Callable[..., Path]
PHOTO = (4000, 3000)
QWEN = "qwen2.5vl:7b"
sides = st.integers(1, 20_000)


@pytest.mark.parametrize(
    ("options", "model", "sent"),
    [
        ({}, QWEN, (1024, 768)),
        ({"max_size": 640}, QWEN, (640, 480)),
        ({"max_size": 0}, QWEN, PHOTO),
        ({"max_pixels": 1_000_000}, QWEN, (1154, 866)),
        ({"max_size": 800, "max_pixels": 1_000_000}, QWEN, (800, 600)),
        ({"max_size": AUTO}, QWEN, (1008, 756)),
        ({"max_size": AUTO}, "gemma3:4b", (896, 672)),
        ({"max_size": AUTO}, "some-model", (1024, 768)),
        ({"image_tokens": 2000}, QWEN, (1428, 1064)),
        ({"image_tokens": 2000, "max_size": 1024}, QWEN, (1024, 768)),
        ({"image_tokens": 300, "max_size": AUTO}, QWEN, (560, 420)),
    ],
)
def test_a_photo_is_sent_at_the_requested_size(
    options: dict[str, int], model: str, sent: tuple[int, int]
) -> None:
    """Each limit counts, 1024 is the default, and `auto` uses the size that suits the model."""
    assert sizing_of(ImageOptions(**options), model)(PHOTO) == sent


@example(101, 1447, 1024, 28_846)
@example(7, 2689, 1024, 2735)
@given(sides, sides, st.sampled_from([0, 32, 640, 1024]), st.none() | st.integers(1024, 10**7))
def test_limits_are_kept_and_nothing_grows(width: int, height: int, longest: int, pixels: int | None) -> None:
    """No side grows, no limit is exceeded, and the aspect is kept."""
    sent = Sizing(longest=longest, pixels=pixels)((width, height))
    assert all(1 <= new <= old for new, old in zip(sent, (width, height), strict=True))
    assert not longest or max(sent) <= longest
    assert pixels is None or sent[0] * sent[1] <= pixels or 1 in sent
    scale = max(sent) / max(width, height)
    assert abs(sent[0] - width * scale) <= 1
    assert abs(sent[1] - height * scale) <= 1


@pytest.mark.parametrize("longest", [0, 256, 1024])
def test_a_smaller_limit_never_sends_larger(longest: int) -> None:
    """within() keeps --max-size and --max-pixels as upper bounds."""
    sizing = Sizing(longest=longest)
    width, height = sizing.within(200_000)(PHOTO)
    assert width * height <= 200_000
    assert max(width, height) <= (longest or max(PHOTO))
    assert Sizing(pixels=1000).within(200_000).pixels == 1000


def test_a_model_is_known_by_its_real_name_too() -> None:
    """An alias on the server identifies no family, but the real name of the model does."""
    options = ImageOptions(max_size=AUTO)
    assert sizing_of(options, "captioner").family is None
    known = sizing_of(options, "captioner", "Qwen/Qwen2.5-VL-7B-Instruct").family
    assert known == sizing_of(options, QWEN).family is not None
    assert sizing_of(options, "captioner", "qwen25vl").family == known


def test_ollama_reports_the_architecture() -> None:
    """The architecture is read from the details of /api/show, or from its model_info."""
    assert architecture_of({"details": {"family": "gemma3"}}) == "gemma3"
    assert architecture_of({"model_info": {"general.architecture": "qwen25vl"}}) == "qwen25vl"
    assert architecture_of({}) is None


def test_tokens_of_an_unknown_model_cannot_be_bounded() -> None:
    """--image-tokens with an unknown model is refused, and the message names other flags to use."""
    with pytest.raises(ConfigError, match="--max-size or --max-pixels"):
        sizing_of(ImageOptions(image_tokens=500), "some-model")


def test_new_limits_leave_the_digests_of_old_records_alone() -> None:
    """Settings contain only the limits that are set, and the default is still 1024."""
    found = Found(backend="ollama", url="http://a", model=QWEN)

    def settings(**options: object) -> dict[str, Any]:
        return answer_settings(RunConfig.of("photos", **options), found, "p")

    assert settings()["max_size"] == settings(max_size=1024)["max_size"] == 1024
    assert "max_pixels" not in settings()
    assert settings(max_size="auto")["max_size"] == "auto"
    assert (settings(max_pixels="1MP")["max_pixels"], settings(max_pixels="1MP")["max_size"]) == (10**6, 0)
    assert settings(image_tokens=500)["image_tokens"] == 500


@pytest.mark.parametrize("typed", ["", "x", "12px", "-5", "31", "70000"])
def test_a_side_that_makes_no_sense_is_refused(typed: str) -> None:
    """An invalid --max-size is refused, and the message names the flag."""
    with pytest.raises(ConfigError, match="--max-size"):
        RunConfig.of("photos", max_size=typed)


async def asked(endpoint: Endpoint, **options: object) -> Ran:
    return await ran(backend="ollama", base_url=endpoint.url, model="tiny-vision", **options)


def notices(done: Ran) -> str:
    return " ".join(event.message for event in done.of(Notice) if isinstance(event, Notice))


async def test_a_run_sends_what_suits_the_model(photos: Photos, endpoint: Endpoint) -> None:
    """With `auto` the endpoint reports its model's family and gets whole patches, also if rotated."""
    folder = photos(1, PHOTO)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (3000, 2000)).save(folder / "turned.jpg", exif=exif)
    endpoint.models["tiny-vision"] = Model(family="qwen25vl")
    done = await asked(endpoint, max_size="auto")
    sent = {r.id: (r.image.sent_width, r.image.sent_height) for r in done.results}
    assert sent == {"photos/p0000.jpg": (1008, 756), "photos/turned.jpg": (672, 1008)}
    assert {(p.width, p.height) for q in endpoint.questions for p in q.pictures} == set(sent.values())


async def test_auto_for_an_unknown_model_gives_a_notice(photos: Photos, endpoint: Endpoint) -> None:
    """For an unknown model `auto` is 1024, and a notice says so."""
    photos(1, PHOTO)
    done = await asked(endpoint, max_size="auto")
    assert done.results[0].image.sent_width == 1024
    assert "--max-size auto is 1024" in notices(done)


async def test_a_budget_that_no_picture_keeps_gives_a_notice(photos: Photos, endpoint: Endpoint) -> None:
    """Gemma 3 uses 256 tokens for every picture, and a notice says that this exceeds the budget."""
    photos(1, PHOTO)
    endpoint.models["tiny-vision"] = Model(family="gemma3")
    done = await asked(endpoint, image_tokens=100)
    assert [r.ok for r in done.results] == [True]
    assert "at least 256 tokens, more than --image-tokens 100" in notices(done)


async def test_tokens_of_an_unknown_model_end_the_run_at_once(photos: Photos, endpoint: Endpoint) -> None:
    """--image-tokens with an unknown model ends the run before a request is sent or a file is written."""
    photos(1)
    done = await asked(endpoint, image_tokens=100, output="o.jsonl")
    assert isinstance(done.error, ConfigError)
    assert not endpoint.questions
    assert not Path("o.jsonl").exists()


def test_sizings_are_cached_apart() -> None:
    """The cached size of one set of limits is not used for another."""
    one = Sizing(longest=640)
    assert [one(PHOTO), replace(one, longest=320)(PHOTO), one(PHOTO)] == [(640, 480), (320, 240), (640, 480)]
