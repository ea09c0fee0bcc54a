"""The structure of a file, read before it is opened: pages, scans, and files made to stall a run."""

import struct

import pytest
from pictures import OPTIONS, PLAIN, SMALL, encoded, multi_scan, psnr, sent

from vlmbatch.config.groups import ImageOptions
from vlmbatch.errors import ImageError
from vlmbatch.imaging.jpeg.structure import segments, survey
from vlmbatch.imaging.prepare import prepare
from vlmbatch.imaging.tiff.structure import MOST_PAGES
from vlmbatch.imaging.tiff.structure import survey as pages_of


def with_pages(count: int) -> bytes:
    """A TIFF with `count` directories, all empty except the first."""
    data = bytearray(encoded(SMALL, "TIFF"))
    (at,) = struct.unpack_from("<I", data, 4)
    (entries,) = struct.unpack_from("<H", data, at)
    link = at + 2 + 12 * entries
    for _ in range(count - 1):
        struct.pack_into("<I", data, link, len(data))
        link = len(data) + 2
        data += bytes(6)
    return bytes(data)


def linked_to(target: int) -> bytes:
    """A TIFF whose only page points to a next one at this byte."""
    data = bytearray(with_pages(2))
    struct.pack_into("<I", data, data.index(struct.pack("<I", len(data) - 6)), target)
    return bytes(data)


@pytest.mark.parametrize("count", [1, 3, 100])
def test_pages_are_counted(count: int) -> None:
    """The record's `frames` is the number of pages, as Pillow writes them and in any byte order."""
    pages = [SMALL] * (count - 1)
    for options in ({}, {"big_tiff": True}):
        data = encoded(SMALL, "TIFF", save_all=True, append_images=pages, **options)
        assert prepare(data, OPTIONS).frames == count


def test_many_pages_are_not_counted_to_the_end() -> None:
    """Counting stops at MOST_PAGES, so that a million pages do not take minutes."""
    assert pages_of(with_pages(MOST_PAGES + 5000)).pages == MOST_PAGES


@pytest.mark.parametrize("target", [8, 0x7FFFFF00, 3])
def test_the_first_page_is_used_even_if_others_are_broken(target: int) -> None:
    """A chain of pages that points back, outside the file or to garbage does not fail the first page."""
    prepared = prepare(linked_to(target), OPTIONS)
    assert sent(prepared).size == SMALL.size
    assert prepared.frames >= 1


def test_a_table_of_millions_of_strips_is_refused() -> None:
    """A table of millions of strips, each of which would become an object in memory, is refused."""
    data = bytearray(encoded(SMALL, "TIFF"))
    (at,) = struct.unpack_from("<I", data, 4)
    (entries,) = struct.unpack_from("<H", data, at)
    for n in range(entries):
        (tag,) = struct.unpack_from("<H", data, at + 2 + 12 * n)
        if tag == 273:  # StripOffsets
            struct.pack_into("<HHII", data, at + 2 + 12 * n, 273, 3, 4_000_000, 8)
    with pytest.raises(ImageError, match="table of more than 1000000 entries"):
        prepare(bytes(data), OPTIONS)


def test_a_scan_bomb_is_refused() -> None:
    """A progressive JPEG with a thousand scans, which would decode for hours, is refused; ten are usual."""
    data = encoded(SMALL, "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    assert 2 <= survey(data).scans <= 20
    bomb = data[:last] + data[last:-2] * 1000 + data[-2:]
    with pytest.raises(ImageError, match="500 scans"):
        prepare(bomb, OPTIONS)


@pytest.mark.parametrize(
    "filling", [b"\xff\xfe\x00\x02" * 20_000, b"\xff" * 2_000_000], ids=["comments", "fill bytes"]
)
def test_a_jpeg_that_is_all_padding_is_refused(filling: bytes) -> None:
    """A JPEG with megabytes of padding, which would take minutes or gigabytes to open, is refused."""
    with pytest.raises(ImageError, match=r"unlike any real picture|stray bytes"):
        prepare(PLAIN[:2] + filling + PLAIN[2:], OPTIONS)


@pytest.mark.parametrize("max_size", [64, 1024])
@pytest.mark.parametrize("piece", [b"\xff\xda", b"\xff\xd8"], ids=["scans", "starts"])
def test_endless_pieces_do_not_stall(piece: bytes, max_size: int) -> None:
    """Thousands of scans or starts behind the only scan of a picture are refused, not walked through."""
    scan = PLAIN[PLAIN.index(b"\xff\xda") : -2] if piece == b"\xff\xda" else piece
    data = PLAIN[:-2] + scan * 11_000 + PLAIN[-2:]
    with pytest.raises(ImageError, match="unlike any real picture"):
        list(segments(data))
    with pytest.raises(ImageError) as raised:
        prepare(data, ImageOptions(max_size=max_size))
    assert raised.value.kind == "bad_image"


def test_a_jpeg_of_several_scans_looks_the_same() -> None:
    """A JPEG with one scan for each colour, as some scanners write it, is prepared like any other."""
    data = multi_scan(SMALL)
    assert survey(data).scans == 3
    assert psnr(sent(prepare(data, OPTIONS)), SMALL) > 25


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("tag", "kind", "value", "pages"),
    [
        (254, 4, 0, 2),
        (254, 4, 2, 2),  # one page of many
        (254, 4, 1, 1),  # a smaller version of the first page
        (254, 4, 4, 1),  # its mask
        (254, 3, 1, 1),
        (255, 3, 2, 1),
        (255, 3, 3, 2),
    ],
)
def test_a_smaller_version_of_a_page_is_no_page(
    order: str, tag: int, kind: int, value: int, pages: int
) -> None:
    """The levels of a pyramid and the masks of a TIFF do not count as pages."""
    field = struct.pack(f"{order}I", value) if kind == 4 else struct.pack(f"{order}HH", value, 0)
    first = struct.pack(f"{order}HI", 0, 14)  # an empty directory that points to the next one
    second = struct.pack(f"{order}HHHI4sI", 1, tag, kind, 1, field, 0)
    mark = b"II*\x00" if order == "<" else b"MM\x00*"
    assert pages_of(mark + struct.pack(f"{order}I", 8) + first + second).pages == pages
