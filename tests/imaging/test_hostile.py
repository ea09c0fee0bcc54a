"""Hostile files: a truncated, broken, huge or foreign file only causes an ImageError with its reason."""

import contextlib
import errno
import random
import struct
import sys
import zlib
from functools import partial
from io import BytesIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import (
    EVERY_FORMAT,
    OPTIONS,
    PLAIN,
    RED,
    SMALL,
    encoded,
    exif,
    jpeg_with,
    outcome,
    png_chunk,
    png_header,
    run_python,
    sent,
)
from PIL import Image
from selection import long

from vlmbatch.config.groups import ImageOptions
from vlmbatch.errors import ImageError, ResourceError
from vlmbatch.imaging.jpeg.strip import bared
from vlmbatch.imaging.jpeg.structure import survey
from vlmbatch.imaging.prepare import inspect, prepare

# imaging sets its warning filters once for the process, and pytest resets them after each test
pytestmark = [
    pytest.mark.filterwarnings(f"ignore::UserWarning:PIL.{module}ImagePlugin")
    for module in ("Jpeg", "Png", "Tiff")
]


@pytest.mark.parametrize("name", EVERY_FORMAT)
def test_no_cut_file_passes_for_another_picture(name: str) -> None:
    """A file that is cut anywhere fails as bad_image, unless it still has all pixels that are sent."""
    data = EVERY_FORMAT[name]()
    whole = prepare(data, OPTIONS).data
    chance = random.Random(3)
    cuts = {0, 1, 2, 3, 10, 60, len(data) // 2, len(data) - 2, len(data) - 1}
    passed = 0
    for cut in sorted(cuts | set(chance.sample(range(len(data)), 30))):
        match outcome(data[:cut]):
            case ImageError() as error:
                assert error.kind == "bad_image"
                assert "0x" not in str(error)
            case prepared:
                assert prepared.data == whole
                passed += 1
    if "JPEG" in name:
        assert not passed
    if name not in ("animated GIF", "pages of TIFF", "APNG", "MPO"):  # these have more frames, not sent
        assert passed <= 3


def test_every_cut_of_a_plain_jpeg_is_found() -> None:
    """A cut at any byte, even in the end mark, is found although the pixels are not decoded."""
    thumbnail = b"Exif\x00\x00" + encoded(SMALL.resize((40, 30)), "JPEG")
    for data in (PLAIN, encoded(SMALL, "JPEG", progressive=True), jpeg_with(PLAIN, 0xE1, thumbnail)):
        for cut in [*range(0, len(data), 61), len(data) - 2, len(data) - 1]:
            with pytest.raises(ImageError) as raised:
                prepare(data[:cut], OPTIONS)
            assert raised.value.kind == "bad_image"


def test_a_jpeg_that_only_looks_whole_is_found() -> None:
    """A plain JPEG is sent only if it decodes: without its quantization tables it fails."""
    at = PLAIN.index(b"\xff\xdb")
    without = PLAIN[:at] + PLAIN[PLAIN.index(b"\xff\xc0") :]
    assert survey(without).whole
    assert bared(without) is not None
    with pytest.raises(ImageError, match="the JPEG cannot be decoded") as raised:
        prepare(without, OPTIONS)
    assert raised.value.kind == "bad_image"


def test_a_cut_jpeg_is_called_truncated() -> None:
    """The message of a cut JPEG says that it is truncated."""
    with pytest.raises(ImageError, match=r"^the JPEG is truncated: "):
        prepare(PLAIN[: len(PLAIN) // 2], OPTIONS)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the file is empty"),
        (b"Dear diary", "not an image: it begins like text"),
        (b"<!DOCTYPE html><title>404</title>", "not an image: it begins like HTML"),
        (b"%PDF-1.7", "not an image: it begins like a PDF"),
        (b"P6 9000 9000 255\n" + bytes(48), "not an image"),
        (b"\x89PNG\r\n\x1a\n", "the PNG cannot be opened"),
        (b"\xff\xd8\xff", "the JPEG cannot be opened"),
        (encoded(SMALL, "JPEG")[:30] + bytes(500), "the JPEG cannot be"),
        (encoded(SMALL, "TIFF")[:8], "the TIFF cannot be opened: its first page is broken; get a whole copy"),
        (encoded(SMALL, "JPEG2000"), "not an image: it begins like JPEG 2000; make a PNG"),
        (encoded(SMALL, "ICO"), "not an image"),
    ],
)
def test_a_file_that_is_no_image_is_refused(data: bytes, message: str) -> None:
    """prepare() and inspect() refuse a file that is no image and say what it is."""
    for read in (partial(prepare, options=OPTIONS), inspect):
        with pytest.raises(ImageError, match=message.replace("(", r"\(")) as raised:
            read(data)
        assert raised.value.kind == "bad_image"


def test_the_pixel_cap_comes_before_decoding() -> None:
    """A file of 74 bytes that declares 400 megapixels is refused by its header."""
    bomb = png_header(20000, 20000, 8, 2)[:74]
    message = "^20000x20000 = 400 megapixels, more than --max-pixels-in 200 MP; "
    for read in (partial(prepare, options=OPTIONS), partial(inspect, max_pixels_in=OPTIONS.max_pixels_in)):
        with pytest.raises(ImageError, match=message) as raised:
            read(bomb)
        assert raised.value.kind == "too_large"


def test_the_pixel_cap_is_exact() -> None:
    """A picture of exactly the allowed number of pixels is accepted, and one with a row more is not."""
    options = ImageOptions(max_pixels_in=120 * 90)
    prepare(encoded(SMALL), options)
    with pytest.raises(ImageError, match="megapixels"):
        prepare(encoded(SMALL.resize((120, 91))), options)


def test_pillows_own_cap_is_off() -> None:
    """A picture between Pillow's limit and --max-pixels-in gets neither Pillow's warning nor its error."""
    header = png_header(13400, 13400)  # over twice Pillow's 89 megapixels
    assert inspect(header, OPTIONS.max_pixels_in).width == 13400
    with pytest.raises(ImageError, match="truncated") as raised:
        prepare(header, OPTIONS)
    assert raised.value.kind == "bad_image"


@pytest.mark.parametrize("kind", [b"zTXt", b"iCCP"])
def test_a_compressed_text_or_profile_is_harmless(kind: bytes) -> None:
    """A PNG chunk that unpacks to megabytes fails at most its own image."""
    bomb = png_chunk(kind, b"x\x00\x00" + zlib.compress(bytes(5_000_000)))
    data = encoded(SMALL)
    match outcome(data[:33] + bomb + data[33:]):
        case ImageError() as error:
            assert error.kind == "bad_image"
        case prepared:
            assert sent(prepared).size == SMALL.size


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"II*\x00", b"RIFF1234WEBP"]),
    st.binary(max_size=200),
)
def test_any_bytes_give_an_image_error(head: bytes, tail: bytes) -> None:
    """Random bytes, also behind a valid signature, raise nothing but ImageError."""
    outcome(head + tail, ImageOptions(max_pixels_in=1_000_000))
    with contextlib.suppress(ImageError):
        inspect(head + tail)


class FailingFile(BytesIO):
    """An open file whose second read fails with the given errno."""

    def __init__(self, data: bytes, number: int) -> None:
        super().__init__(data)
        self.number, self.reads = number, 0

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads += 1
        if self.reads > 1:
            raise OSError(self.number, "no luck")
        return super().read(size)


def test_failures_of_the_machine_are_not_blamed_on_the_image() -> None:
    """A lack of descriptors or memory is a ResourceError; a disk error is an ImageError of this file."""
    for number in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
        with pytest.raises(ResourceError):
            inspect(FailingFile(PLAIN, number))
    with pytest.raises(ImageError, match="no luck"):
        inspect(FailingFile(PLAIN, errno.EIO))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux holds a process to RLIMIT_AS")
def test_too_little_memory_fails_the_image_and_not_the_process() -> None:
    """A picture that does not fit into memory is too_large, like one above --max-pixels-in."""
    done = run_python(
        "import resource; from vlmbatch.imaging.prepare import prepare\n"
        "from vlmbatch.config.groups import ImageOptions\n"
        "from vlmbatch.errors import ImageError\n"
        f"data = {png_header(13400, 13400, 8, 2)!r}\n"
        "resource.setrlimit(resource.RLIMIT_AS, (500_000_000, 500_000_000))\n"
        "try: prepare(data, ImageOptions())\n"
        "except ImageError as error: print(error.kind, error)\n"
    )
    assert done.stdout.startswith(b"too_large not enough memory"), done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux holds a process to RLIMIT_AS")
@pytest.mark.parametrize(
    ("size", "work"),
    [
        ((1000, 750), "prepare(data, ImageOptions(max_size=0))"),
        # so wide that the row buffers of the codecs are as large as the picture
        long((60_000, 10), "prepare(data, ImageOptions())"),
        long((60_000, 10), "encode(picture, 85)"),
    ],
    ids=["any step", "decoder", "encoder"],
)
def test_memory_that_ends_anywhere_fails_the_image(size: tuple[int, int], work: str) -> None:
    """If memory runs out while an image is decoded, rotated or encoded, this image fails as too_large."""
    done = run_python(
        "import resource; from io import BytesIO; from pathlib import Path; from PIL import Image\n"
        "from vlmbatch.imaging.prepare import prepare; from vlmbatch.imaging.encode import encode\n"
        "from vlmbatch.config.groups import ImageOptions; from vlmbatch.errors import ImageError\n"
        f"data = {encoded(Image.new('RGBA', size, RED), exif=exif(6))!r}\n"
        f"picture = Image.new('RGB', {size})\n"
        "def attempt(tenths):\n"
        "    used = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()\n"
        "    resource.setrlimit(resource.RLIMIT_AS, (used + tenths * 100_000, -1))\n"
        f"    try: return {work} and 'good'\n"
        "    except ImageError as error: return error.kind if error.kind == 'too_large' else str(error)\n"
        "    finally: resource.setrlimit(resource.RLIMIT_AS, (-1, -1))\n"
        "print(*sorted({attempt(tenths) for tenths in range(0, 150, 2)}))\n"
    )
    assert done.stdout == b"good too_large\n", done.stderr


@pytest.mark.parametrize(
    ("marker", "payload"),
    [(0xE2, b"MPF\x00II*\x00\xff\xff\xff\xff"), (0xE1, b"Exif\x00\x00II*\x00\xff\xff\xff\xff")],
    ids=["MPF", "EXIF"],
)
def test_pillow_prints_no_warnings(marker: int, payload: bytes) -> None:
    """Broken metadata prints no Python warning of Pillow into the run's output."""
    data = jpeg_with(encoded(SMALL, "JPEG"), marker, payload)
    with pytest.warns(UserWarning, match=r"Corrupt EXIF|malformed MPO"):
        Image.open(BytesIO(data))
    done = run_python(
        "from vlmbatch.imaging.prepare import prepare; from vlmbatch.config.groups import ImageOptions\n"
        f"print(prepare({data!r}, ImageOptions()).width)\n"
    )
    assert (done.stdout, done.stderr) == (b"120\n", b"")


def test_pillow_logs_nothing() -> None:
    """Pillow's logger prints nothing, though without a handler it writes errors to the terminal."""
    data = encoded(SMALL, "TIFF")
    samples = struct.pack("<HHI", 277, 3, 1)  # the tag SamplesPerPixel
    at = data.index(samples) + len(samples)
    data = data[:at] + struct.pack("<I", 2048) + data[at + 4 :]
    done = run_python(
        "from vlmbatch.imaging.prepare import inspect; from vlmbatch.errors import ImageError\n"
        f"try: inspect({data!r})\n"
        "except ImageError as error: print(error.kind)\n"
    )
    assert (done.stdout, done.stderr) == (b"bad_image\n", b"")
