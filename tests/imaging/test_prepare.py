"""Imaging: every kind of picture becomes an upright JPEG of the right size, in many threads at once."""

import gc
from base64 import b64decode
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import (
    BLUE,
    EVERY_FORMAT,
    HAS_HEIF,
    OPTIONS,
    RED,
    SMALL,
    WHITE,
    animation,
    assert_near,
    encoded,
    exif,
    jpeg_with,
    pixel,
    png_chunk,
    psnr,
    quarters,
    run_python,
    sent,
)
from PIL import Image, ImageFile, ImageFilter, ImageOps, TiffImagePlugin
from tiffs import tiff

from vlmbatch.config.groups import ImageOptions
from vlmbatch.errors import ImageError
from vlmbatch.images import unread
from vlmbatch.imaging.prepare import inspect, prepare
from vlmbatch.imaging.sizing import Sizing
from vlmbatch.imaging.tokens import Family
from vlmbatch.imaging.tokens.names import GEMMA_3

# imaging sets its warning filters once for the process, and pytest resets them after each test
pytestmark = [
    pytest.mark.filterwarnings(f"ignore::UserWarning:PIL.{module}ImagePlugin")
    for module in ("Jpeg", "Png", "Tiff")
]


@pytest.mark.parametrize("name", EVERY_FORMAT)
def test_every_format_decodes(name: str) -> None:
    """Each format gives a JPEG of its size, together with the facts of the source."""
    data = EVERY_FORMAT[name]()
    prepared = prepare(data, OPTIONS)
    assert sorted(sent(prepared).size) in ([90, 120], [48, 64])
    assert prepared.sent_bytes == len(b64decode(prepared.data))
    assert prepared.media_type == "image/jpeg"
    assert (prepared.original_width, prepared.original_height) == (prepared.width, prepared.height)
    assert prepared.warnings == unread(prepared.frames)


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "AVIF"])
def test_colours_survive(name: str) -> None:
    """The sent picture looks like the source, in every format."""
    soft = SMALL.filter(ImageFilter.GaussianBlur(6))
    assert psnr(sent(prepare(encoded(soft, name), OPTIONS)), soft) > 33


@pytest.mark.parametrize("size", [(1600, 1200), (96, 64)])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_carried_out(orientation: int, size: tuple[int, int]) -> None:
    """All eight orientations become upright, also if the decoder shrinks the picture."""
    data = encoded(quarters(*size), "JPEG", exif=exif(orientation))
    wanted = ImageOps.exif_transpose(Image.open(BytesIO(data)))
    prepared = prepare(data, ImageOptions(max_size=256))
    assert (prepared.original_width, prepared.original_height) == wanted.size
    assert Sizing(longest=256)(wanted.size) == (prepared.width, prepared.height)
    for x, y in ((0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75)):
        value = wanted.getpixel((int(wanted.width * x), int(wanted.height * y)))
        assert isinstance(value, tuple)
        assert_near(pixel(prepared, x, y), (int(value[0]), int(value[1]), int(value[2])))


@pytest.mark.parametrize("name", ["PNG", "WEBP", "TIFF", "AVIF", "MPO"])
def test_orientation_counts_in_every_format(name: str) -> None:
    """Orientation 6 rotates a wide picture exactly once, also if Pillow or the format does the rotation."""
    data = encoded(quarters(96, 64), name, exif=exif(6))
    prepared = prepare(data, OPTIONS)
    assert (prepared.width, prepared.height) == (64, 96)
    assert_near(pixel(prepared, 0.75, 0.25), RED)
    header = inspect(data)
    assert (header.width, header.height) == (64, 96)


@pytest.mark.parametrize("broken", [b"Exif\x00\x00II*\x00\xff\xff\xff\xff", b"Exif\x00\x00", exif(99)])
def test_broken_exif_leaves_the_picture_as_it_lies(broken: bytes) -> None:
    """EXIF data without meaning is ignored and fails no picture."""
    data = jpeg_with(encoded(quarters(96, 64), "JPEG"), 0xE1, broken)
    prepared = prepare(data, OPTIONS)
    assert (prepared.width, prepared.height) == (96, 64)
    assert (prepared.original_width, prepared.original_height) == (96, 64)
    assert_near(pixel(prepared, 0.25, 0.25), RED)


@pytest.mark.parametrize("max_size", [0, 50])
@pytest.mark.parametrize("turn", range(1, 9))
def test_a_tiff_that_xmp_turns_is_not_squeezed(turn: int, max_size: int) -> None:
    """A TIFF without a tag for its orientation, which Pillow rotates by its XMP data, keeps its aspect."""
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[700] = f'<x:xmpmeta tiff:Orientation="{turn}"/>'.encode()
    tags.tagtype[700] = 1
    prepared = prepare(encoded(quarters(96, 64), "TIFF", tiffinfo=tags), ImageOptions(max_size=max_size))
    seen = (96, 64) if turn < 5 else (64, 96)
    assert (prepared.original_width, prepared.original_height) == seen
    assert (prepared.width, prepared.height) == Sizing(longest=max_size)(seen)


@pytest.mark.parametrize("family", [None, GEMMA_3], ids=["any model", "a family"])
def test_exif_behind_the_pixels_counts(family: Family | None) -> None:
    """EXIF data behind the pixels of a PNG counts, though the header does not show it."""
    data = encoded(quarters(96, 64))
    late = data[:-12] + png_chunk(b"eXIf", exif(6).removeprefix(b"Exif\0\0")) + data[-12:]
    prepared = prepare(late, OPTIONS, sizing=Sizing(longest=1024, family=family))
    assert (prepared.width, prepared.height) == (64, 96)
    assert_near(pixel(prepared, 0.75, 0.25), RED)


@pytest.mark.parametrize("family", [None, GEMMA_3], ids=["any model", "a family"])
@pytest.mark.parametrize(
    ("chunk", "body"), [(b"eXIf", b"garbage!"), (b"tEXt", b"Raw profile type exif\x00\nexif\n 4\nzzzz\n")]
)
def test_exif_that_cannot_be_read_is_only_a_warning(chunk: bytes, body: bytes, family: Family | None) -> None:
    """If reading EXIF data fails, the picture is treated as upright and the record has a warning."""
    data = encoded(quarters(96, 64))
    sizing = Sizing(longest=1024, family=family)
    prepared = prepare(data[:33] + png_chunk(chunk, body) + data[33:], OPTIONS, sizing=sizing)
    assert (prepared.width, prepared.height) == (96, 64)
    assert prepared.warnings == ("its EXIF data is broken; treated as upright",)


@pytest.mark.parametrize("name", ["GIF", "WEBP", "PNG", "MPO", "TIFF", "AVIF"])
def test_the_first_frame_is_sent_and_the_frames_are_counted(name: str) -> None:
    """An animation or a file of pages gives its first picture and the number of pictures."""
    prepared = prepare(animation(name), OPTIONS)
    assert_near(pixel(prepared), RED)
    assert prepared.frames == 3
    assert prepare(encoded(SMALL), OPTIONS).frames == 1


@pytest.mark.parametrize(
    ("size", "max_size", "wanted"),
    [
        ((10000, 3), 1024, (1024, 32)),
        ((3, 10000), 1024, (32, 1024)),
        ((10000, 3), 0, (10000, 100)),
        ((1, 1), 1024, (32, 32)),
        ((31, 500), 1024, (32, 500)),
        ((70000, 10), 1024, (1024, 32)),
    ],
)
def test_thin_pictures_are_padded_with_white(
    size: tuple[int, int], max_size: int, wanted: tuple[int, int]
) -> None:
    """A side under 32 pixels or a ratio over 100:1 is padded evenly, and the record has a warning."""
    prepared = prepare(encoded(Image.new("RGB", size, BLUE)), ImageOptions(max_size=max_size, quality=100))
    assert (prepared.width, prepared.height) == wanted
    assert prepared.warnings[0].startswith("padded from ")
    assert prepared.warnings[0].endswith(f" to {wanted[0]}x{wanted[1]}")
    assert pixel(prepared)[2] > 150
    assert (prepared.original_width, prepared.original_height) == size
    if min(size) < min(wanted) // 2:
        assert_near(pixel(prepared, 0, 0), WHITE)
        assert_near(pixel(prepared, 0.999, 0.999), WHITE)


def test_a_side_that_no_jpeg_has_is_refused() -> None:
    """A side of 70000 pixels is refused, and the message names --max-size."""
    with pytest.raises(ImageError, match="--max-size") as raised:
        prepare(encoded(Image.new("L", (70000, 10))), ImageOptions(max_size=0))
    assert raised.value.kind == "bad_shape"


@settings(max_examples=80, deadline=None)
@given(
    width=st.integers(1, 400),
    height=st.integers(1, 400),
    max_size=st.sampled_from((0, 32, 33, 64, 100, 255)),
    name=st.sampled_from(("JPEG", "PNG")),
    mode=st.sampled_from(("RGB", "L", "1")),
    orientation=st.integers(1, 8),
)
def test_laws_of_size(width: int, height: int, max_size: int, name: str, mode: str, orientation: int) -> None:
    """The longest side keeps its limit, only padding enlarges, and the aspect is kept within a pixel."""
    prepared = prepare(
        encoded(Image.new(mode, (width, height)), name, exif=exif(orientation)),
        ImageOptions(max_size=max_size),
    )
    sides = sent(prepared).size
    limit = max_size or max(width, height)
    assert max(sides) <= max(limit, 32)
    assert min(sides) >= 32
    if not prepared.warnings:
        original = (prepared.original_width, prepared.original_height)
        assert original == ((height, width) if orientation >= 5 else (width, height))
        scale = min(1, limit / max(original))
        for side, before in zip(sides, original, strict=True):
            assert side <= before
            assert abs(side - before * scale) <= 1


def test_quality_takes_effect() -> None:
    """A lower --quality sends fewer bytes."""
    sizes = [prepare(encoded(SMALL), ImageOptions(quality=q)).sent_bytes for q in (30, 85, 100)]
    assert sizes == sorted(set(sizes))


def test_heic_without_its_plug_in_names_the_extra() -> None:
    """The message for a HEIC without the plug-in contains the command to type."""
    done = run_python(
        "import sys; sys.modules['pillow_heif'] = None\n"
        "from vlmbatch.imaging.prepare import inspect\n"
        "from vlmbatch.errors import ImageError\n"
        "try: inspect(b'\\x00\\x00\\x00\\x18ftypheic\\x00\\x00\\x00\\x00mif1heic')\n"
        "except ImageError as error: print(error.kind, error)\n"
    )
    assert done.stdout == b'bad_image HEIC needs a plug-in; install it with: pip install "vlmbatch[heic]"\n'


@pytest.mark.skipif(not HAS_HEIF, reason="pillow-heif is not installed")
def test_heic_is_registered_when_one_arrives() -> None:
    """A new process opens HEIC in many threads at once without any set-up."""
    done = run_python(
        "from concurrent.futures import ThreadPoolExecutor\n"
        "from vlmbatch.imaging.prepare import prepare; from vlmbatch.config.groups import ImageOptions\n"
        f"data = {encoded(quarters(96, 64), 'HEIF', exif=exif(6))!r}\n"
        "with ThreadPoolExecutor(8) as pool:\n"
        "    done = list(pool.map(lambda _: prepare(data, ImageOptions()), range(16)))\n"
        "print({(p.width, p.height) for p in done})\n"
    )
    assert done.stdout == b"{(64, 96)}\n", done.stderr


def test_many_threads_do_not_mix_their_pictures() -> None:
    """Each of sixteen threads that prepare different pictures at once gets its own picture."""
    names = ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP")

    def one(number: int) -> None:
        colour = (number * 16 % 256, 255 - number * 16 % 256, number * 40 % 256)
        size = (300 + number, 200 + number)
        data = encoded(Image.new("RGB", size, colour), names[number % len(names)])
        prepared = prepare(data, ImageOptions(max_size=100))
        assert_near(pixel(prepared), colour)
        assert (prepared.original_width, prepared.original_height) == size

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(one, range(160)))


def test_inspect_reads_an_open_file_by_its_header() -> None:
    """inspect() returns format, mode and upright size without decoding, even of a truncated file."""
    data = encoded(SMALL, "JPEG", exif=exif(8))
    header = inspect(BytesIO(data[: len(data) // 2]))
    assert (header.format, header.mode, header.width, header.height) == ("JPEG", "RGB", 90, 120)


def kinds_of_files() -> dict[str, bytes]:
    """A small picture in each format, and TIFFs for both decoders."""
    made = {}
    for name in ("JPEG", "PNG", "TIFF", "GIF", "WEBP", "BMP", "AVIF"):
        out = BytesIO()
        Image.new("RGB", (96, 64), "red").save(out, name)
        made[name] = out.getvalue()
    made["float TIFF"] = tiff(np.ones((64, 96, 3), "f4"), photometric="rgb")
    return made


@pytest.mark.parametrize("name", list(kinds_of_files()))
def test_a_picture_leaves_memory_at_once(name: str) -> None:
    """No opened picture waits for the garbage collector, which a run seldom starts."""
    data = kinds_of_files()[name]
    prepare(data, ImageOptions(max_size=48))
    gc.freeze()  # objects of other tests are not searched
    gc.disable()
    try:
        prepare(data, ImageOptions(max_size=48))
        left = [kind for kind in map(type, gc.get_objects()) if issubclass(kind, ImageFile.ImageFile)]
    finally:
        gc.enable()
    assert left == []
