"""Files that hold no good image: rows F1 to F8, F18 and F19 of docs/failures.md.

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
"""The most bytes of memory of a run over small and hostile files; it starts with about 60 MB."""


async def test_f1_a_file_that_is_no_image_fails_with_its_format(folder: Path, endpoint: Endpoint) -> None:
    """Empty, text, HTML, SVG and PDF files named like images are bad_image, named by format, and not sent."""
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
    """Half a JPEG, and one without its last two bytes, are truncated bad_images, though Pillow opens both."""
    whole = encoded(SMALL, "JPEG")
    (folder / "half.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "endless.jpg").write_bytes(whole[:-2])
    found = failures(await over(endpoint))
    assert {name: f.kind for name, f in found.items()} == dict.fromkeys(
        ("half.jpg", "endless.jpg"), "bad_image"
    )
    assert all("truncated" in f.message for f in found.values())


async def test_f3_damaged_bytes_inside_a_jpeg_are_not_detected(folder: Path, endpoint: Endpoint) -> None:
    """A JPEG with an overwritten middle decodes without an error, and is sent."""
    data = bytearray(encoded(SMALL.resize((800, 600)), "JPEG"))
    data[len(data) // 2 : len(data) // 2 + 40] = bytes(range(40))
    (folder / "rotten.jpg").write_bytes(data)
    assert failures(await over(endpoint)) == {}


async def test_f4_cut_webp_and_avif_files_fail(folder: Path, endpoint: Endpoint) -> None:
    """A WebP or AVIF file that is cut at any point is bad_image, whatever its decoder raises."""
    for name in ("WEBP", "AVIF"):
        whole = encoded(SMALL, name)
        for share in (0.1, 0.3, 0.6, 0.9):
            (folder / f"{share}.{name.lower()}").write_bytes(whole[: int(len(whole) * share)])
    found = failures(await over(endpoint))
    assert len(found) == 8
    assert {f.kind for f in found.values()} == {"bad_image"}


def test_f5_compressed_bombs_take_no_memory(folder: Path, endpoint: Endpoint) -> None:
    """A PNG text and a profile of 100 KB that unpack to 100 MB take no such memory."""
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
    """74 bytes that declare 400 megapixels and 65 that declare 81 fail without the memory for them."""
    (folder / name).write_bytes(data)
    done, peak = measured(*asking(endpoint))
    assert done.returncode == 3
    assert peak < MODEST
    assert written()[name]["error"]["kind"] == kind


async def test_f18_every_colour_mode_is_sent_as_jpeg(folder: Path, endpoint: Endpoint) -> None:
    """Images with alpha, a palette, 1, 16 or 32 bits, floats, CMYK or LAB are all sent as JPEG."""
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


async def test_f19_extreme_shapes_are_padded_or_fail(folder: Path, endpoint: Endpoint) -> None:
    """Extreme shapes are sent with a warning; 70000x10 at full size, too long for a JPEG, is bad_shape."""
    Image.new("RGB", (10_000, 3)).save(folder / "strip.png")
    Image.new("RGB", (70_000, 10)).save(folder / "long.png")
    shrunk = await over(endpoint)
    assert failures(shrunk) == {}
    assert all(r.warnings for r in shrunk.results if r.id != "photos/p0000.jpg")
    (refused,) = failures(await over(endpoint, max_size=0)).items()
    assert (refused[0], refused[1].kind) == ("long.png", "bad_shape")
    assert "--max-size" in refused[1].message
