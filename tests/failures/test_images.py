"""What a run makes of files that hold no good image: rows F1 to F8, F18 and F19 of docs/failures.md.

F6 is in tests/imaging/test_fuzz.py.
"""

import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from command import measured
from endpoint import Endpoint
from file_runs import asking, failures, over, written
from pictures import SMALL, encoded, png_chunk, png_header, ramp
from PIL import Image

Photos = Callable[..., Path]
MODEST = 250_000_000
"""Bytes of memory that a run over small and hostile files stays below; it starts with about 60 MB."""


async def test_f1_what_is_no_image_is_a_failure_that_says_what_it_is(
    folder: Path, endpoint: Endpoint
) -> None:
    """Empty, text, HTML, SVG and PDF under the name of an image: bad_image, and never asked about."""
    contents = {
        "empty.jpg": b"",
        "text.jpg": b"Dear diary",
        "html.jpg": b"<!DOCTYPE html><title>404</title>",
        "svg.png": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
        "pdf.jpg": b"%PDF-1.7\n",
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    found = failures(await over(endpoint))
    assert set(found) == set(contents)
    assert {f.kind for f in found.values()} == {"bad_image"}
    for name, word in (("empty", "empty"), ("text", "text"), ("html", "HTML"), ("pdf", "PDF")):
        assert word in found[f"{name}.jpg"].message
    assert len(endpoint.questions) == 1


async def test_f2_a_cut_jpeg_is_found_before_it_is_sent(folder: Path, endpoint: Endpoint) -> None:
    """Half a JPEG, and one without its last two bytes, are truncated, though Pillow opens both."""
    whole = encoded(SMALL, "JPEG")
    (folder / "half.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "endless.jpg").write_bytes(whole[:-2])
    found = failures(await over(endpoint))
    assert {name: f.kind for name, f in found.items()} == dict.fromkeys(
        ("half.jpg", "endless.jpg"), "bad_image"
    )
    assert all("truncated" in f.message for f in found.values())


async def test_f3_rotten_bytes_inside_a_jpeg_cannot_be_seen(folder: Path, endpoint: Endpoint) -> None:
    """A JPEG whose middle was overwritten decodes without an error: it is asked about as it is."""
    data = bytearray(encoded(SMALL.resize((800, 600)), "JPEG"))
    data[len(data) // 2 : len(data) // 2 + 40] = bytes(range(40))
    (folder / "rotten.jpg").write_bytes(data)
    assert failures(await over(endpoint)) == {}


async def test_f4_cut_webp_and_avif(folder: Path, endpoint: Endpoint) -> None:
    """Cut anywhere, they are failures of their own, whatever their decoders raise."""
    for name in ("WEBP", "AVIF"):
        whole = encoded(SMALL, name)
        for share in (0.1, 0.3, 0.6, 0.9):
            (folder / f"{share}.{name.lower()}").write_bytes(whole[: int(len(whole) * share)])
    found = failures(await over(endpoint))
    assert len(found) == 8
    assert {f.kind for f in found.values()} == {"bad_image"}


def test_f5_what_unpacks_to_a_hundred_megabytes_costs_its_own_record(
    folder: Path, endpoint: Endpoint
) -> None:
    """A text and a profile of 100 KB that hold 100 MB: two failures, and memory for neither."""
    data = encoded(SMALL)
    for kind in (b"zTXt", b"iCCP"):
        bomb = png_chunk(kind, b"x\x00\x00" + zlib.compress(bytes(100_000_000), 9))
        (folder / f"{kind.decode()}.png").write_bytes(data[:33] + bomb + data[33:])
    (folder / "bad.png").write_bytes(b"")
    done, peak = measured(*asking(endpoint))
    assert done.returncode == 3
    assert peak < MODEST
    assert written()["p0000.jpg"]["status"] == "ok"
    assert len(written()) == 4


@pytest.mark.parametrize(
    ("name", "data", "kind"),
    [
        ("f7.png", png_header(20_000, 20_000, 8, 2)[:74], "too_large"),
        ("f8.ppm.jpg", b"P6 9000 9000 255\n" + bytes(48), "bad_image"),
    ],
)
def test_f7_f8_a_header_that_promises_too_much_takes_no_memory(
    folder: Path, endpoint: Endpoint, name: str, data: bytes, kind: str
) -> None:
    """74 bytes that declare 400 megapixels and 65 that declare 81 are refused before a pixel is decoded."""
    (folder / name).write_bytes(data)
    done, peak = measured(*asking(endpoint))
    assert done.returncode == 3
    assert peak < MODEST
    assert written()[name]["error"]["kind"] == kind


async def test_f18_every_mode_of_colour_is_sent(folder: Path, endpoint: Endpoint) -> None:
    """Transparency, palettes, 1, 16 and 32 bits, floats, CMYK and LAB become a JPEG that a model takes."""
    for mode in ("RGBA", "LA", "P", "1", "L", "CMYK", "LAB"):
        suffix = "tif" if mode in ("CMYK", "LAB") else "png"
        SMALL.convert(mode).save(folder / f"{mode}.{suffix}")
    values = [float(n) for n in range(256)]
    for mode in ("I;16", "I", "F"):
        ramp(mode, values if mode == "F" else [int(v) for v in values]).save(folder / f"{mode}.tif")
    done = await over(endpoint)
    assert failures(done) == {}
    assert len(done.results) == 11
    assert {p.data[:2] for q in endpoint.questions for p in q.pictures} == {b"\xff\xd8"}


async def test_f19_extreme_shapes_are_padded_or_refused_by_name(folder: Path, endpoint: Endpoint) -> None:
    """10000x3 is put on white and says so; 70000x10 at full size is a shape that no JPEG has."""
    Image.new("RGB", (10_000, 3)).save(folder / "strip.png")
    Image.new("RGB", (70_000, 10)).save(folder / "long.png")
    shrunk = await over(endpoint)
    assert failures(shrunk) == {}
    assert all(r.warnings for r in shrunk.results if r.id != "photos/p0000.jpg")
    (refused,) = failures(await over(endpoint, max_size=0)).items()
    assert (refused[0], refused[1].kind) == ("long.png", "bad_shape")
    assert "--max-size" in refused[1].message
