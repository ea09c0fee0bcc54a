"""Pass-through: some JPEG files are sent without encoding again, and nothing but the picture is ever sent."""

import random
import tracemalloc
from base64 import b64decode
from collections.abc import Iterator
from contextlib import suppress
from io import BytesIO
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import (
    EVERY_FORMAT,
    OPTIONS,
    PLAIN,
    SMALL,
    animation,
    encoded,
    exif,
    jpeg_with,
    multi_scan,
    outcome,
    photo,
    sent,
    srgb_profile,
    swapped_profile,
)
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from vlmbatch.config.groups import ImageOptions
from vlmbatch.errors import ImageError
from vlmbatch.imaging.jpeg.strip import bared
from vlmbatch.imaging.prepare import inspect, prepare

# imaging sets its warning filters once for the process, and pytest resets them after each test
pytestmark = [
    pytest.mark.filterwarnings(f"ignore::UserWarning:PIL.{module}ImagePlugin") for module in ("Jpeg", "Tiff")
]

KINDS: dict[str, bytes] = {
    "baseline": PLAIN,
    "progressive": encoded(SMALL, "JPEG", progressive=True),
    "4:4:4": encoded(SMALL, "JPEG", subsampling=0, quality=95, optimize=True),
    "4:2:2": encoded(SMALL, "JPEG", subsampling=1),
    "restart markers": encoded(SMALL, "JPEG", restart_marker_blocks=2),
    "progressive with restart markers": encoded(SMALL, "JPEG", progressive=True, restart_marker_rows=1),
    "several scans": multi_scan(SMALL),
    "Adobe, RGB": encoded(SMALL, "JPEG", keep_rgb=True),
}
THUMBNAIL = encoded(SMALL.resize((40, 30)), "JPEG", comment=b"SECRET")
JFIF_WITH_THUMBNAIL = b"JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x01\x01\xff\x00\x00"
NOISE = Image.frombytes("RGB", (300, 300), random.Random(2).randbytes(270_000))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("max_size", [0, 120, 1024])
def test_a_plain_small_jpeg_is_sent_byte_for_byte(kind: str, max_size: int) -> None:
    """A JPEG that needs no change is sent byte for byte."""
    data = KINDS[kind]
    prepared = prepare(data, ImageOptions(max_size=max_size))
    assert b64decode(prepared.data) == data
    assert (prepared.width, prepared.height, prepared.sent_bytes) == (120, 90, len(data))


EXTRAS: dict[str, tuple[int, bytes]] = {
    "EXIF": (0xE1, exif()),
    "EXIF that says upright": (0xE1, exif(1)),
    "EXIF of no known orientation": (0xE1, exif(99)),
    "XMP": (0xE1, b"http://ns.adobe.com/xap/1.0/\x00<x>SECRET</x>"),
    "sRGB": (0xE2, b"ICC_PROFILE\x00\x01\x01" + srgb_profile()),
    "FlashPix": (0xE2, b"FPXR\x00SECRET"),
    "IPTC": (0xED, b"Photoshop 3.0\x008BIM\x04\x04\x00\x00\x00\x00\x00\x06SECRET"),
    "thumbnail of JFIF": (0xE0, b"JFXX\x00\x10" + THUMBNAIL),
    "a camera's own": (0xE4, b"SECRET" + THUMBNAIL),
    "provenance": (0xEB, b"JP\x00\x01SECRET"),
    "last of the kind": (0xEF, b"SECRET"),
    "comment": (0xFE, b"SECRET"),
    "empty comment": (0xFE, b""),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("extra", EXTRAS)
def test_metadata_is_cut_out(extra: str, kind: str) -> None:
    """A JPEG that needs no other change is sent without its metadata, and is not encoded again."""
    prepared = prepare(jpeg_with(KINDS[kind], *EXTRAS[extra]), OPTIONS)
    assert b64decode(prepared.data) == KINDS[kind]
    assert prepared.sent_bytes == len(KINDS[kind])
    assert prepared.warnings == ()


@pytest.mark.parametrize("tail", [b"SECRET", PLAIN, b"\x00" * 9, b"\xff\xd9", b"\xff\xe1\x00\x08SECRET"])
def test_bytes_behind_the_end_mark_are_cut_off(tail: bytes) -> None:
    """Videos, second pictures and padding behind the end mark are not sent."""
    for data in KINDS.values():
        assert b64decode(prepare(data + tail, OPTIONS).data) == data


def test_metadata_between_scans_is_cut_out() -> None:
    """A comment between scans is cut out, wherever a table may be."""
    data = KINDS["progressive"]
    for at in (data.index(b"\xff\xda"), data.rindex(b"\xff\xda"), data.rindex(b"\xff\xc4"), len(data) - 2):
        commented = data[:at] + b"\xff\xfe\x00\x08SECRET" + data[at:]
        assert b64decode(prepare(commented, OPTIONS).data) == data


REASONS: dict[str, tuple[bytes, int]] = {
    "too large": (PLAIN, 119),
    "EXIF orientation": (encoded(SMALL, "JPEG", exif=exif(6)), 1024),
    "ICC": (encoded(SMALL, "JPEG", icc_profile=swapped_profile()), 1024),
    "broken ICC": (encoded(SMALL, "JPEG", icc_profile=b"SECRET" * 30), 1024),
    "JFIF thumbnail": (jpeg_with(PLAIN, 0xE0, JFIF_WITH_THUMBNAIL), 1024),
    "two JFIF": (jpeg_with(PLAIN, 0xE0, PLAIN[6:20]), 1024),
    "unknown APP0": (jpeg_with(PLAIN, 0xE0, b"AVI1SECRET"), 1024),
    "long APP14": (jpeg_with(PLAIN, 0xEE, b"Adobe\x00d\x00\x00\x00\x00\x01SECRET"), 1024),
    "unknown APP14": (jpeg_with(PLAIN, 0xEE, b"SECRET"), 1024),
    "several pictures, of which none are there": (jpeg_with(PLAIN, 0xE2, b"MPF\x00SECRET"), 1024),
    "bytes between segments": (PLAIN[:20] + b"SECRET" + PLAIN[20:], 1024),
    "a table behind the scan": (
        PLAIN[:-2] + b"\xff\xdb\x00\x43\x03" + b"SECRET" * 10 + b"...." + PLAIN[-2:],
        1024,
    ),
    "fill bytes": (PLAIN[:20] + b"\xff\xff" + PLAIN[20:], 1024),
    "unusual sampling": (PLAIN.replace(b"\x01\x22\x00\x02\x11\x01", b"\x01\x22\x00\x02\x12\x01"), 1024),
    "gray": (encoded(SMALL.convert("L"), "JPEG"), 1024),
    "CMYK": (encoded(SMALL.convert("CMYK"), "JPEG"), 1024),
    "MPO": (animation("MPO"), 1024),
    "PNG": (encoded(SMALL), 1024),
    "thin": (encoded(SMALL.resize((120, 31)), "JPEG"), 1024),
    "long": (encoded(SMALL.resize((4000, 39)), "JPEG"), 0),
    "heavy": (encoded(NOISE, "JPEG", quality=100, subsampling=0), 1024),
}


@pytest.mark.parametrize("reason", REASONS)
def test_each_reason_to_encode_again_is_respected(reason: str) -> None:
    """A JPEG that is large, rotated, thin, heavy, unusual or not in sRGB is encoded again."""
    data, max_size = REASONS[reason]
    prepared = prepare(data, ImageOptions(max_size=max_size))
    sent(prepared)
    out = b64decode(prepared.data)
    assert out != PLAIN
    assert out not in data
    bare = bared(out)
    assert bare is not None
    assert bare.data is out
    assert b"SECRET" not in out


@st.composite
def jpegs(draw: st.DrawFn) -> bytes:
    """JPEG files as Pillow writes them, with any coding and any metadata."""
    size = (draw(st.integers(32, 140)), draw(st.integers(32, 140)))
    progressive = draw(st.booleans())
    # Pillow does not write RGB with subsampled colours
    as_rgb = draw(st.booleans())
    rows, blocks = draw(st.sampled_from(((0, 0), (1, 0), (0, 1), (0, 7))))
    metadata: dict[str, Any] = {
        "exif": exif(draw(st.sampled_from((None, 1)))),
        "icc_profile": srgb_profile(),
        "comment": b"SECRET" * draw(st.integers(1, 99)),
        "xmp": b"<x>SECRET</x>",
        "dpi": (300, 300),
    }
    data = encoded(
        photo(*size),
        "JPEG",
        quality=draw(st.integers(1, 95)),
        subsampling=0 if as_rgb else draw(st.integers(0, 2)),
        keep_rgb=as_rgb,
        progressive=progressive,
        optimize=draw(st.booleans()),
        restart_marker_rows=rows,
        restart_marker_blocks=blocks,
        **{name: value for name, value in metadata.items() if draw(st.booleans())},
    )
    return data + draw(st.binary(max_size=40).map(lambda tail: tail and b"SECRET" + tail))


@settings(max_examples=150, deadline=None)
@given(jpegs())
def test_the_pixels_are_those_of_the_original(data: bytes) -> None:
    """A passed JPEG decodes to exactly the same pixels and has no metadata, for any coding and metadata."""
    out = b64decode(prepare(data, OPTIONS).data)
    assert Image.open(BytesIO(out)).tobytes() == Image.open(BytesIO(data)).tobytes()
    bare = bared(out)
    assert bare is not None
    assert bare.data is out
    for trace in (b"SECRET", b"Secret", b"Exif", b"ICC_PROFILE", b"http:"):
        assert trace not in out


def mutants(seed: int, count: int) -> Iterator[bytes]:
    """Pictures with metadata in which a few bytes are changed, mostly in the headers."""
    chance = random.Random(seed)
    originals = []
    for data in KINDS.values():
        for marker, payload in chance.sample(list(EXTRAS.values()), 3):
            data = jpeg_with(data, marker, payload)
        originals.append(data)
    for _ in range(count):
        broken = bytearray(chance.choice(originals))
        end = broken.index(b"\xff\xda") + 14 if chance.random() < 0.7 else len(broken)
        for _ in range(chance.choice((1, 1, 2, 5))):
            broken[chance.randrange(2, end)] = chance.choice((0, 1, 0x7F, 0xD9, 0xFF, chance.randrange(256)))
        yield bytes(broken)


def test_mutated_metadata_is_not_sent() -> None:
    """After any change of a few bytes, no metadata is sent and nothing but ImageError is raised."""
    for data in mutants(3, 1500):
        match outcome(data):
            case ImageError():
                pass
            case prepared:
                sent(prepared)
                out = b64decode(prepared.data)
                for trace in (b"SECRET", b"SecretCamera", b"<x>"):
                    assert trace not in out, data


def decoded(data: bytes) -> bytes | None:
    try:
        return Image.open(BytesIO(data), formats=("JPEG",)).tobytes()
    except OSError:
        return None


def test_headers_and_tables_prove_as_much_as_all_the_data() -> None:
    """The check of headers and tables accepts exactly the files that Pillow decodes completely."""
    good = bad = 0
    for data in mutants(4, 1500):
        with suppress(ImageError):
            inspect(data)  # a file that cannot be opened is refused before the check
            if (bare := bared(data)) is None:
                continue
            whole = decoded(data)
            assert decoded(bare.data) == whole
            assert (decoded(bare.frame) is None) == (whole is None)
            good, bad = good + (whole is not None), bad + (whole is None)
    assert good > 300
    assert bad > 20


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_metadata_does_not_leave(name: str) -> None:
    """The sent bytes contain no camera, place, comment, XMP data or profile of the source."""
    options: dict[str, Any] = {"exif": exif(1), "icc_profile": swapped_profile()}
    if name == "JPEG":
        options |= {"comment": b"SECRET-COMMENT", "xmp": b"<x>SECRET-XMP</x>"}
    if name == "PNG":
        options["pnginfo"] = PngInfo()
        options["pnginfo"].add_text("Comment", "SECRET-TEXT")
    data = encoded(SMALL, name, **options)
    assert b"SECRET" in data
    out = b64decode(prepare(data, OPTIONS).data)
    for trace in (b"SECRET", b"Exif", b"SecretCamera", b"ICC_PROFILE", b"http:"):
        assert trace not in out
    assert not Image.open(BytesIO(out)).getexif()


@pytest.mark.parametrize("name", EVERY_FORMAT)
def test_the_same_bytes_give_the_same_bytes(name: str) -> None:
    """Preparing the same file twice gives the same bytes, since endpoints cache pictures by content."""
    data = EVERY_FORMAT[name]()
    assert prepare(data, ImageOptions(max_size=64)) == prepare(data, ImageOptions(max_size=64))


@pytest.mark.parametrize(("extra", "most"), [(b"", 1.4), (exif(1), 2.4)], ids=["bare", "EXIF"])
def test_passing_on_makes_no_needless_copies(extra: bytes, most: float) -> None:
    """A file of 5 MB costs its base64 and, if metadata had to be cut out, one copy."""
    noise = Image.effect_noise((2600, 2400), 60)
    data = encoded(Image.merge("RGB", [noise] * 3), "JPEG", quality=92)
    data = jpeg_with(data, 0xE1, extra) if extra else data
    assert len(data) > 4_000_000
    prepare(data, ImageOptions(max_size=0))
    tracemalloc.start()
    try:
        prepared = prepare(data, ImageOptions(max_size=0))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert prepared.sent_bytes == len(data) - (len(extra) + 4 if extra else 0)
    assert peak < most * len(data)
