"""file:// URLs: the pictures that are sent as a path to a server on the same disk, and the others as data."""

from collections.abc import Callable
from pathlib import Path

import pytest
from backend_contract import KINDS, question
from command import records, run
from endpoint import Endpoint
from PIL import Image
from running import ran

Photos = Callable[..., Path]


def urls(endpoint: Endpoint) -> list[str]:
    """The URLs of the pictures in all requests, without their data."""
    parts = [part for q in endpoint.questions for part in q.body["messages"][-1]["content"]]
    return [part["image_url"]["url"].partition(",")[0] for part in parts if "image_url" in part]


async def test_pictures_that_need_no_change(photos: Photos, endpoint: Endpoint) -> None:
    """With --file-urls a small upright JPEG is sent as its absolute path, and the server reads the file."""
    folder = photos(1)
    (folder / "p0000.jpg").rename(folder / "a b#1%20\xe9.jpg")
    endpoint.media = folder
    done = await ran(backend="vllm", base_url=endpoint.url, model="tiny-vision", file_urls=True)
    assert done.error is None
    assert urls(endpoint) == [f"file://{folder}/a%20b%231%2520%C3%A9.jpg"]
    assert endpoint.questions[0].pictures[0].data == (folder / "a b#1%20\xe9.jpg").read_bytes()
    assert done.results[0].image.sent_width == 64


async def test_changed_pictures_are_sent(photos: Photos, endpoint: Endpoint) -> None:
    """Pictures that are rotated, resized or not JPEG are sent as data, to arrive upright and small."""
    folder = photos(0)
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("RGB", (64, 48), "red").save(folder / "turned.jpg", exif=turned)
    Image.new("RGB", (2048, 1024), "green").save(folder / "large.jpg")
    Image.new("RGB", (64, 48), "blue").save(folder / "drawn.png")
    endpoint.media = folder
    done = await ran(backend="vllm", base_url=endpoint.url, model="tiny-vision", file_urls=True)
    assert [r.ok for r in done.results] == [True] * 3
    assert urls(endpoint) == ["data:image/jpeg;base64"] * 3
    assert sorted((p.width, p.height) for q in endpoint.questions for p in q.pictures) == [
        (48, 64),
        (64, 48),
        (1024, 512),
    ]


async def test_only_with_the_flag(photos: Photos, endpoint: Endpoint) -> None:
    """Without --file-urls no path is sent, even for an unchanged picture."""
    endpoint.media = photos(1)
    await ran(backend="vllm", base_url=endpoint.url, model="tiny-vision")
    assert urls(endpoint) == ["data:image/jpeg;base64"]


async def test_a_smaller_one_is_sent(photos: Photos, endpoint: Endpoint) -> None:
    """A retry with a smaller picture sends data instead of the path."""
    endpoint.media = photos(1)
    endpoint.script = ["context:7"]
    done = await ran(backend="vllm", base_url=endpoint.url, model="tiny-vision", file_urls=True)
    assert [r.ok for r in done.results] == [True]
    assert [url.partition(":")[0] for url in urls(endpoint)] == ["file", "data"]


def test_names_that_are_not_utf8(photos: Photos, endpoint: Endpoint) -> None:
    """A file whose name is not UTF-8 is sent as data, since no server would find it by a URL."""
    folder = photos(1)
    (folder / "p0000.jpg").rename(folder / "p\udcff.jpg")
    endpoint.media = folder
    done = run("run", "photos", "-b", "vllm", "--base-url", endpoint.url, "-m", "tiny-vision", "--file-urls")
    assert done.returncode == 0, done.stderr
    assert [r["status"] for r in records(done.stdout)] == ["ok"]
    assert urls(endpoint) == ["data:image/jpeg;base64"]


async def test_a_picture_without_a_file(endpoint: Endpoint) -> None:
    """A picture without a file, such as the canary, is sent as data."""
    async with KINDS["vllm"].open(endpoint.url, file_urls=True) as backend:
        await backend.complete(question())
    assert urls(endpoint) == ["data:image/jpeg;base64"]


@pytest.mark.parametrize("name", ["p0000.jpg", "gone.jpg"])
async def test_a_file_that_only_this_machine_has(name: str, photos: Photos, endpoint: Endpoint) -> None:
    """A path that the server does not find ends the run, since it would not find any other path."""
    folder = photos(1)
    endpoint.media = folder
    endpoint.script = ["file_missing"] if name == "gone.jpg" else []
    done = await ran(backend="vllm", base_url=endpoint.url, model="tiny-vision", file_urls=True)
    assert (done.error is None) == (name == "p0000.jpg")
    assert done.error is None or "--file-urls" in str(done.error)
