"""Formats: images are recognised by their first bytes, without an image library."""

import subprocess
import sys

import pytest

from vlmbatch.imaging.formats import IMAGE_EXTENSIONS, NON_IMAGE_EXTENSIONS, describe, looks_like_image, sniff


def ftyp(major: bytes, *compatible: bytes) -> bytes:
    brands = b"".join(compatible)
    return (
        (16 + len(brands)).to_bytes(4, "big") + b"ftyp" + major + bytes(4) + brands + b"\x00\x00\x00\x08free"
    )


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"\xff\xd8\xff\xe0\x00\x10JFIF", "JPEG"),
        (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", "PNG"),
        (b"GIF89a\x01\x00", "GIF"),
        (b"GIF87a\x01\x00", "GIF"),
        (b"RIFF\x10\x00\x00\x00WEBPVP8 ", "WEBP"),
        (b"BM" + bytes(12) + b"\x28\x00\x00\x00", "BMP"),
        (b"II*\x00\x08\x00\x00\x00", "TIFF"),
        (b"MM\x00*\x00\x00\x00\x08", "TIFF"),
        (b"II+\x00\x08\x00\x00\x00", "TIFF"),
        (ftyp(b"avif", b"mif1"), "AVIF"),
        (ftyp(b"avis"), "AVIF"),
        (ftyp(b"mif1", b"avif", b"miaf"), "AVIF"),
        (ftyp(b"mif1", b"heic", b"miaf"), "HEIF"),
        (ftyp(b"heic", b"mif1", b"heic"), "HEIF"),
        (ftyp(b"heix"), "HEIF"),
    ],
)
def test_every_format_that_is_opened_is_known_by_its_first_bytes(head: bytes, name: str) -> None:
    """Each format is named as Pillow names it, since the name selects the only decoder that is used."""
    assert sniff(head) == name
    assert looks_like_image(head)


@pytest.mark.parametrize(
    ("head", "what"),
    [
        (ftyp(b"isom", b"avc1", b"mp41"), "a video"),
        (ftyp(b"mp42", b"avif"), "a video"),
        (ftyp(b"qt  "), "a video"),
        (ftyp(b"M4V "), "a video"),
        (ftyp(b"crx ", b"isom"), "a video"),
        (b"II*\x00\x10\x00\x00\x00CR\x02\x00", "a camera raw file"),
        (b"IIRO\x08\x00\x00\x00", "a camera raw file"),
        (b"<!DOCTYPE html><html>", "HTML"),
        (b"\xef\xbb\xbf\r\n<HTML>", "HTML"),
        (b"<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg'>", "SVG"),
        (b"<?xml version='1.0'?>", "XML or HTML"),
        (b"%PDF-1.7", "a PDF; make pictures of its pages first: pdftoppm -r 150 -png FILE.pdf page"),
        (b"PK\x03\x04\x14\x00", "a ZIP archive; unpack it first: unzip FILE.zip -d FOLDER"),
        (b"BMI is a number of doctors, not of pictures", "text"),
        (b"RIFF\x10\x00\x00\x00WAVEfmt ", "no known format (first bytes 52 49 46 46 10 00 00 00)"),
        (b"P6 9000 9000 255\n", "text"),
        (bytes(64), "a block of zeros or blanks"),
        (b"version https://git-lfs.github.com/spec/v1", "a Git LFS pointer; run: git lfs pull"),
    ],
)
def test_a_file_that_is_no_image_is_described(head: bytes, what: str) -> None:
    """Files that begin like images, such as videos and camera raw, are not treated as images."""
    assert sniff(head) is None
    assert describe(head) == what


def test_any_start_of_a_file_is_judged_without_failing() -> None:
    """A head may end anywhere, even inside a box or before the first byte."""
    whole = ftyp(b"mif1", b"avif")
    assert [sniff(whole[:n]) for n in (0, 1, 7, 8)] == [None] * 4
    assert not looks_like_image(b"")
    assert describe(b"\xff")


def test_extensions_are_lower_case_and_apart() -> None:
    """No ending is in both lists, and each is lower case and begins with its dot."""
    assert not IMAGE_EXTENSIONS & NON_IMAGE_EXTENSIONS
    for extension in IMAGE_EXTENSIONS | NON_IMAGE_EXTENSIONS:
        assert extension.startswith(".")
        assert extension == extension.lower()


def test_listing_loads_no_image_library() -> None:
    """Formats are recognised without importing Pillow, so that listing a folder is quick."""
    code = "import sys, vlmbatch.imaging.formats; sys.exit('PIL' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
