"""PNG files of which a chunk is broken."""

import struct
import zlib

import pytest
from pictures import OPTIONS, SMALL, animation, encoded, outcome, png_chunk, swapped_profile
from PIL import Image

from vlmbatch.errors import ImageError
from vlmbatch.imaging.prepare import inspect, prepare

DATA = encoded(SMALL)
WHOLE = prepare(DATA, OPTIONS).data
HEADER_END = 33  # signature and IHDR


def with_chunk(kind: bytes, body: bytes, is_intact: bool = True, data: bytes = DATA) -> bytes:
    """The PNG with one more chunk behind its header; its checksum may be wrong."""
    chunk = bytearray(png_chunk(kind, body))
    chunk[-1] ^= not is_intact
    return data[:HEADER_END] + chunk + data[HEADER_END:]


@pytest.mark.parametrize("kind", [b"tEXt", b"pHYs", b"tIME", b"iTXt", b"zTXt", b"prVt", b"caBX"])
def test_a_wrong_checksum_of_metadata_refuses_no_picture(kind: bytes) -> None:
    """A chunk of metadata with a wrong checksum is left out, and the record says so."""
    for body in (b"Comment\x00scan", b"", bytes(9)):
        prepared = prepare(with_chunk(kind, body, is_intact=False), OPTIONS)
        assert prepared.warnings == (f"broken data in the PNG ({kind.decode()}) was left out",)
        assert prepared.data == WHOLE
    assert inspect(with_chunk(kind, b"", is_intact=False)).width == SMALL.width


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (b"tRNS", bytes(6)),
        (b"gAMA", bytes(4)),
        (b"cHRM", bytes(32)),
        (b"sRGB", b"\x00"),
        (b"cICP", b"\x01\x0d\x00\x01"),
        (b"iCCP", b"x\x00\x00" + zlib.compress(swapped_profile())),
        (b"eXIf", b"garbage"),
    ],
)
def test_a_chunk_that_changes_the_look_is_named(kind: bytes, body: bytes) -> None:
    """If a chunk is left out on which the look depends, the warning says that, too."""
    prepared = prepare(with_chunk(kind, body, is_intact=False), OPTIONS)
    wanted = f"broken data in the PNG ({kind.decode()}) was left out; the picture may look different"
    assert prepared.warnings == (wanted,)
    assert prepared.data == WHOLE


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (b"gAMA", b""),
        (b"cHRM", bytes(31)),
        (b"sRGB", b""),
        (b"pHYs", bytes(8)),
        (b"tRNS", bytes(5)),
        (b"iCCP", b""),
        (b"iCCP", b"name without an end"),
        (b"iCCP", b"x\x00\x07" + zlib.compress(b"y")),
        (b"zTXt", b"x\x00\x07y"),
        (b"acTL", bytes(7)),
    ],
)
def test_a_chunk_without_sense_refuses_no_picture(kind: bytes, body: bytes) -> None:
    """A chunk that is too short, or of an unknown compression, is left out wherever it stands."""
    late = DATA[:-12] + png_chunk(kind, body) + DATA[-12:]
    for data in (with_chunk(kind, body), late):
        prepared = prepare(data, OPTIONS)
        assert prepared.data == WHOLE
        assert len(prepared.warnings) == 1


def test_several_broken_chunks_are_one_warning() -> None:
    """All broken chunks are left out at once, also if there are thousands."""
    data = with_chunk(b"gAMA", b"")
    for _ in range(3):
        data = with_chunk(b"tEXt", b"x" * 9, is_intact=False, data=data)
    data = data[:HEADER_END] + png_chunk(b"pHYs", b"") * 2000 + data[HEADER_END:]
    (warning,) = prepare(data, OPTIONS).warnings
    assert warning.startswith("broken data in the PNG (gAMA, pHYs, tEXt) was left out")


@pytest.mark.parametrize("kind", [b"IHDR", b"PLTE", b"IDAT"])
def test_a_wrong_checksum_of_the_picture_itself_is_named(kind: bytes) -> None:
    """A PNG is refused, and its broken chunk named, if the picture itself is in that chunk."""
    data = bytearray(encoded(SMALL.convert("P")))
    at = data.index(kind) + 4 + (8 if kind == b"IDAT" else 5)
    data[at] ^= 1
    with pytest.raises(ImageError) as caught:
        prepare(bytes(data), OPTIONS)
    assert caught.value.kind == "bad_image"
    assert f"checksum of its {kind.decode()} chunk is wrong" in str(caught.value)


def test_a_broken_animation_leaves_its_still_picture() -> None:
    """An animated PNG whose frames are out of order is sent as its still picture, as browsers show it."""
    data = animation("PNG")
    at = data.index(b"fcTL") - 4
    body = struct.pack(">I", 9) + data[at + 12 : at + 34]
    prepared = prepare(data[:at] + png_chunk(b"fcTL", body) + data[at + 38 :], OPTIONS)
    assert prepared.warnings == ("the animation of the PNG is broken, so its still picture was sent",)
    assert prepared.frames == 1


def test_what_is_cut_off_stays_refused() -> None:
    """A PNG that ends in the middle is refused, with or without broken chunks, whatever its lengths say."""
    image = encoded(Image.effect_noise((64, 64), 60))
    for data in (image, with_chunk(b"tEXt", b"x", is_intact=False, data=image)):
        for cut in range(20, len(data) - 60, 150):
            assert isinstance(outcome(data[:cut]), ImageError)
    endless = DATA[:HEADER_END] + struct.pack(">I", 0xFFFFFFFF) + b"tEXt" + DATA[HEADER_END:]
    assert isinstance(outcome(endless), ImageError)


@pytest.mark.parametrize("behind", [0, 12])
def test_a_picture_whose_tail_is_zeros_is_refused(behind: int) -> None:
    """Zeros in place of the last part of the data, with or without IEND, are no picture of black pixels."""
    data = encoded(Image.effect_noise((200, 200), 12))
    first = data.index(b"IDAT") - 4
    body, tail = b"", data[-12:]
    at = first
    while data[at + 4 : at + 8] == b"IDAT":
        size = int.from_bytes(data[at : at + 4], "big")
        body, at = body + data[at + 8 : at + 8 + size], at + 12 + size
    whole = data[:first] + png_chunk(b"IDAT", body) + tail  # one chunk, as many programs write it
    assert prepare(whole, OPTIONS).warnings == ()
    for share in (0.3, 0.5, 0.9):
        kept = int(len(whole) * share)
        lost = whole[:kept] + bytes(len(whole) - kept - behind) + whole[len(whole) - behind :]
        with pytest.raises(ImageError, match="the checksum of its IDAT chunk is wrong"):
            prepare(lost, OPTIONS)


def test_zeros_in_a_sound_picture_are_fine() -> None:
    """The data of a blank picture, and metadata, may hold long runs of zeros."""
    blank = encoded(Image.new("RGB", (3000, 3000), "white"))
    for data in (blank, with_chunk(b"prVt", bytes(5000)), DATA + bytes(5000)):
        assert prepare(data, OPTIONS).warnings == ()
