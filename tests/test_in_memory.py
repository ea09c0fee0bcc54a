"""Images in memory in a run and in a session: their ids, their answers, resuming, and wrong types."""

import io
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from endpoint import Endpoint
from pictures import encoded
from PIL import Image

from vlmbatch import RunConfig, open_session, run_batch
from vlmbatch.errors import ConfigError
from vlmbatch.events import Event, TotalKnown
from vlmbatch.records import Result

Photos = Callable[..., Path]


def at(endpoint: Endpoint, **options: object) -> dict[str, Any]:
    """Options of a run or session at this endpoint."""
    return {"backend": "vllm", "base_url": endpoint.url, "model": "tiny-vision", **options}


def plain(number: int) -> Image.Image:
    """A PIL image of one colour, another one for each number."""
    return Image.new("RGB", (64, 48), (number * 40, 0, 0))


def ids(results: Iterator[Result] | list[Result]) -> list[str]:
    """The sorted ids of results that are all answers."""
    found = list(results)
    assert all(result.ok for result in found), [result.failure for result in found]
    return sorted(result.id for result in found)


def test_a_run_takes_paths_bytes_and_pil_images_mixed(photos: Photos, endpoint: Endpoint) -> None:
    """A folder, bytes and a PIL image are answered in one run; ids in memory are positions of arguments."""
    photos(2)
    events: list[Event] = []
    data = encoded(plain(1), "PNG")
    batch = run_batch("photos", data, plain(2), **at(endpoint), observers=[events.append])
    assert ids(iter(batch)) == ["(in memory 2)", "(in memory 3)", "photos/p0000.jpg", "photos/p0001.jpg"]
    assert batch.summary is not None
    assert batch.summary.succeeded == 4
    assert [event.total for event in events if isinstance(event, TotalKnown)] in ([4], [])


def test_ids_lead_back_to_the_images(endpoint: Endpoint) -> None:
    """With images in memory alone, ``(in memory N)`` is the Nth of them, in whatever order results come."""
    images = {f"(in memory {number})": Image.new("RGB", (100 + number, 60)) for number in range(1, 9)}
    results = list(run_batch(*images.values(), **at(endpoint)))
    assert sorted(result.id for result in results) == sorted(images)
    assert all(result.image.width == images[result.id].width for result in results)


def test_a_run_over_images_in_memory_goes_on(endpoint: Endpoint, tmp_path: Path) -> None:
    """The same images again are skipped, also with `limit` and without `dedupe`; a changed image is sent."""
    options = at(endpoint, output=str(tmp_path / "out.jsonl"))
    images = [encoded(plain(0), "PNG"), plain(1), plain(2), plain(3)]
    assert ids(iter(run_batch(*images, **options, limit=2))) == ["(in memory 1)", "(in memory 2)"]
    assert ids(iter(run_batch(*images, **options, limit=1, dedupe=False))) == ["(in memory 3)"]
    batch = run_batch(*images, **options, dedupe=False)
    assert ids(iter(batch)) == ["(in memory 4)"]
    assert batch.summary is not None
    assert batch.summary.skipped == 3
    images[1] = plain(4)
    assert ids(iter(run_batch(*images, **options, dedupe=False))) == ["(in memory 2)"]
    assert len(endpoint.questions) == 5


def test_a_moved_image_in_memory_is_not_sent_again(endpoint: Endpoint, tmp_path: Path) -> None:
    """An answered image at another position gets a record with its answer, and no request."""
    options = at(endpoint, output=str(tmp_path / "out.jsonl"))
    list(run_batch(plain(1), plain(2), **options))
    results = list(run_batch(plain(3), plain(1), plain(2), **options))
    assert {result.id: result.is_known for result in results} == {
        "(in memory 1)": False,
        "(in memory 2)": True,
        "(in memory 3)": True,
    }
    assert len(endpoint.questions) == 3


def test_overwriting_asks_about_all_images_in_memory(endpoint: Endpoint, tmp_path: Path) -> None:
    """`overwrite` deletes the records, and each image is sent again."""
    options = at(endpoint, output=str(tmp_path / "out.jsonl"))
    list(run_batch(plain(1), **options))
    (result,) = run_batch(plain(1), **options, overwrite=True)
    assert not result.is_known
    assert len(endpoint.questions) == 2


def test_a_cache_knows_images_in_memory(endpoint: Endpoint, tmp_path: Path) -> None:
    """A later run, and a session, take the answer about the same picture from the cache."""
    options = at(endpoint, cache=str(tmp_path / "answers"))
    list(run_batch(plain(1), **options))
    (again,) = run_batch(plain(1), **options)
    with open_session(**options) as session:
        answered = session.answer(plain(1), session.question())
    assert (again.is_known, answered.is_known) == (True, True)
    assert len(endpoint.questions) == 1


def test_the_same_image_twice_is_sent_once(endpoint: Endpoint) -> None:
    """Two arguments with one picture cost one request; without `dedupe`, two."""
    image = plain(1)
    results = list(run_batch(image, image, **at(endpoint)))
    assert sorted(result.duplicate_of is not None for result in results) == [False, True]
    assert len(endpoint.questions) == 1
    assert ids(iter(run_batch(image, image, **at(endpoint, dedupe=False)))) == [
        "(in memory 1)",
        "(in memory 2)",
    ]
    assert len(endpoint.questions) == 3


def test_a_failure_for_good_is_not_tried_again(endpoint: Endpoint, tmp_path: Path) -> None:
    """Bytes that no decoder can read fail once; the next run skips them."""
    options = at(endpoint, output=str(tmp_path / "out.jsonl"))
    broken = encoded(plain(1), "PNG")[:60]
    (result,) = run_batch(broken, **options)
    assert result.failure is not None
    assert (result.failure.kind, result.image.bytes, result.image.mtime) == ("bad_image", None, None)
    batch = run_batch(broken, plain(2), **options)
    assert ids(iter(batch)) == ["(in memory 2)"]
    assert batch.summary is not None
    assert batch.summary.failed_before == 1


def test_images_join_the_paths_of_a_config(photos: Photos, endpoint: Endpoint) -> None:
    """With `config`, which may have no path, the arguments are images as without it."""
    photos(1)
    config = RunConfig.of(**at(endpoint))
    assert ids(iter(run_batch(plain(1), config=config))) == ["(in memory 1)"]
    named = RunConfig.of("photos", **at(endpoint))
    assert ids(iter(run_batch(plain(1), config=named))) == ["(in memory 1)", "photos/p0000.jpg"]


def test_no_image_is_an_error() -> None:
    """Without any image, also in an empty list, the call itself raises."""
    with pytest.raises(ConfigError, match="no image is given"):
        run_batch(*[], model="m")


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_all_kinds_of_bytes_are_bytes(endpoint: Endpoint, kind: type) -> None:
    """A bytearray and a memoryview, as databases give them, are the bytes that they hold."""
    data = encoded(plain(1), "PNG")
    (result,) = run_batch(kind(data), **at(endpoint))
    with open_session(**at(endpoint)) as session:
        answered = session.answer(kind(data), session.question())
    assert (result.ok, answered.ok) == (True, True)
    assert result.image == answered.image


class Pixels:
    """An array, as numpy and others make it."""

    def __init__(self) -> None:
        self.__array_interface__ = {"shape": (2, 2), "typestr": "|u1", "version": 3}


def wrong_images() -> dict[str, tuple[Any, str]]:
    """Values that are no image, and what the message says."""
    return {
        "list": (["a.jpg"], r"not list; .*run_batch\(\*images\)"),
        "tuple": (("a.jpg", "b.jpg"), r"not tuple; .*run_batch\(\*images\)"),
        "set": ({"a.jpg"}, r"not set; .*run_batch\(\*images\)"),
        "generator": ((n for n in "ab"), r"not generator; .*run_batch\(\*images\)"),
        "None": (None, "not None$"),
        "number": (7, "not int$"),
        "row": ({"image": b""}, r"not dict; .*row\['image'\]"),
        "file": (io.BytesIO(b""), r"not BytesIO; .*file\.read\(\)"),
        "array": (Pixels(), r"Pixels; write PIL\.Image\.fromarray\(array\)"),
    }


@pytest.mark.parametrize("name", wrong_images())
def test_a_wrong_type_is_refused_with_the_right_one(name: str) -> None:
    """A value that is not an image raises a TypeError at once, which says what to write."""
    value, message = wrong_images()[name]
    with pytest.raises(TypeError, match=message):
        run_batch("photos", value)


def test_a_session_refuses_the_same_types(endpoint: Endpoint) -> None:
    """A session raises the same errors; a list is several images there, and none inside it may be a list."""
    with open_session(**at(endpoint)) as session:
        question = session.question()
        for value, message in wrong_images().values():
            with pytest.raises(TypeError, match=message):
                session.answer([value] if isinstance(value, list | tuple) else value, question)
        with pytest.raises(ValueError, match="at least one image"):
            session.answer([], question)
    assert not endpoint.questions


def test_a_real_array_is_refused_with_the_right_call() -> None:
    """A numpy array is not taken for the bytes of a file, although it can be read as bytes."""
    numpy = pytest.importorskip("numpy")
    with pytest.raises(TypeError, match=r"ndarray; write PIL\.Image\.fromarray"):
        run_batch(numpy.zeros((4, 4, 3), "uint8"))


@pytest.mark.parametrize("data", [b"photos/a.jpg", b"iVBORw0KGgo" * 2000])
def test_a_path_in_bytes_is_told(endpoint: Endpoint, data: bytes) -> None:
    """Bytes of a text, such as a path or base64, are a failure that shows their start and says what to do."""
    (result,) = run_batch(data, **at(endpoint))
    assert result.failure is not None
    assert f"{data[:11]!r}"[:-1] in result.failure.message
    assert "give a path as str or Path" in result.failure.message
    assert len(result.failure.message) < 250
    assert not endpoint.questions


def test_bytes_have_the_limit_of_files(endpoint: Endpoint) -> None:
    """`max_bytes` refuses bytes as it refuses a file; a PIL image has no bytes to count."""
    data = encoded(plain(1), "PNG")
    found = {result.id: result.ok for result in run_batch(data, plain(2), **at(endpoint, max_bytes=50))}
    assert found == {"(in memory 1)": False, "(in memory 2)": True}


def test_a_path_may_be_any_path_object(photos: Photos, endpoint: Endpoint) -> None:
    """A Path and a DirEntry of bytes are paths."""
    photos(2)
    with os.scandir(b"photos") as entries:
        entry = next(entry for entry in entries if entry.name == b"p0001.jpg")
    results = run_batch(Path("photos/p0000.jpg"), entry, **at(endpoint))
    assert ids(iter(results)) == ["photos/p0000.jpg", "photos/p0001.jpg"]


def test_pairs_of_a_session_are_numbered(endpoint: Endpoint) -> None:
    """answer_many() names each image in memory by the position of its pair."""
    with open_session(**at(endpoint)) as session:
        question = session.question()
        pairs = ((Image.new("RGB", (100 + number, 60)), question) for number in range(1, 7))
        found = {result.id: result.image.width for result in session.answer_many(pairs)}
    assert found == {f"(in memory {number})": 100 + number for number in range(1, 7)}


def test_a_closed_pil_image_is_a_failure_of_its_own(endpoint: Endpoint) -> None:
    """A PIL image that its caller has closed too early is a failed result; the others are answered."""
    with tempfile.TemporaryFile() as file:
        plain(1).save(file, "PNG")
        with Image.open(file) as image:
            pass
    results = {result.id: result for result in run_batch(image, plain(2), **at(endpoint))}
    failure = results["(in memory 1)"].failure
    assert failure is not None
    assert failure.message == "this PIL image is closed; keep it open until you have its answer"
    assert results["(in memory 2)"].ok
