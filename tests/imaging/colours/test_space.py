"""Colour spaces that a file names by other means than an ICC profile."""

from collections.abc import Callable

import pytest
from colour_patches import (
    COLOURS,
    TO_2020,
    TO_ADOBE,
    TO_P3,
    avif,
    error,
    light,
    patches,
    samples,
    shown,
    srgb,
    times,
)
from pictures import (
    HAS_HEIF,
    Colour,
    assert_near,
    encoded,
    jpeg_with,
    pixel,
    png_chunk,
    srgb_profile,
    swapped_profile,
)
from PIL import ExifTags, Image

from vlmbatch.config.groups import ImageOptions
from vlmbatch.imaging.prepare import prepare

NEEDS_HEIF = pytest.mark.skipif(not HAS_HEIF, reason="needs pillow-heif")
AS_THEY_ARE = patches(list(COLOURS))
_IHDR_ENDS = 33
_JPEG_EXACT = {"quality": 100, "subsampling": 0}


def told(matrix: tuple[tuple[float, ...], ...], curve: Callable[[float], float] = srgb) -> Image.Image:
    """The colours in a space with these primaries and this curve."""
    lights = [times(matrix, light(colour)) for colour in COLOURS]
    return patches([samples(tuple(map(curve, values))) for values in lights])


def gamma(exponent: float) -> Callable[[float], float]:
    return lambda value: float(max(value, 0) ** (1 / exponent))


def png(image: Image.Image, *chunks: bytes, **options: object) -> bytes:
    """A PNG with these chunks right behind its header."""
    data = encoded(image, "PNG", **options)
    return data[:_IHDR_ENDS] + b"".join(chunks) + data[_IHDR_ENDS:]


def cicp(primaries: int, transfer: int, matrix: int = 0, full_range: int = 1) -> bytes:
    return png_chunk(b"cICP", bytes((primaries, transfer, matrix, full_range)))


def gama(value: float) -> bytes:
    return png_chunk(b"gAMA", round(value * 100_000).to_bytes(4, "big"))


def chrm(*points: float) -> bytes:
    return png_chunk(b"cHRM", b"".join(round(value * 100_000).to_bytes(4, "big") for value in points))


P3_POINTS = (0.3127, 0.3290, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060)
SRGB_POINTS = (0.3127, 0.3290, 0.640, 0.330, 0.300, 0.600, 0.150, 0.060)


@pytest.mark.parametrize(
    ("primaries", "transfer", "matrix", "curve"),
    [
        (12, 13, TO_P3, srgb),
        (12, 1, TO_P3, srgb),
        (9, 14, TO_2020, srgb),
        (9, 2, TO_2020, srgb),
        (12, 4, TO_P3, gamma(2.2)),
        (9, 5, TO_2020, gamma(2.8)),
        (12, 8, TO_P3, gamma(1)),
    ],
)
def test_an_avif_in_a_wide_space_is_converted(
    primaries: int, transfer: int, matrix: tuple[tuple[float, ...], ...], curve: Callable[[float], float]
) -> None:
    """P3 and BT.2020 by code points alone give the colours of sRGB; television's curves are sRGB's."""
    assert error(shown(avif(told(matrix, curve), primaries, transfer))) < 3


@pytest.mark.parametrize(("primaries", "transfer"), [(1, 13), (2, 2), (1, 1), (1, 6), (1, 15)])
def test_an_avif_in_srgb_stays(primaries: int, transfer: int) -> None:
    """Code points of sRGB, and unspecified ones, change nothing."""
    assert error(shown(avif(AS_THEY_ARE, primaries, transfer))) < 1.5


@pytest.mark.parametrize(("primaries", "transfer"), [(0, 13), (99, 13), (1, 9), (9, 200), (99, 16)])
def test_unknown_code_points_are_a_warning(primaries: int, transfer: int) -> None:
    """Reserved and unsupported code points leave the colours, and add a warning that names them."""
    data = avif(AS_THEY_ARE, primaries, transfer)
    assert error(shown(data, warnings=1)) < 1.5
    (warning,) = prepare(data, ImageOptions()).warnings
    assert f"primaries {primaries}, transfer {transfer}" in warning


def test_a_profile_counts_more_than_code_points() -> None:
    """An AVIF with both an ICC profile and code points is converted by its profile."""
    data = avif(AS_THEY_ARE, 12, 13, icc_profile=swapped_profile())
    assert error(shown(data), tuple((green, red, blue) for red, green, blue in COLOURS)) < 3


@NEEDS_HEIF
def test_a_heic_in_a_wide_space_is_converted() -> None:
    """A HEIC names its space like an AVIF."""
    options = {"color_primaries": 12, "transfer_characteristics": 13, "matrix_coefficients": 6}
    data = encoded(told(TO_P3), "HEIF", quality=100, chroma=444, save_nclx_profile=True, **options)
    assert error(shown(data)) < 3


@pytest.mark.parametrize("name", ["AVIF", pytest.param("HEIF", marks=NEEDS_HEIF)])
def test_a_picture_that_names_no_space_stays(name: str) -> None:
    """An AVIF or HEIC without a colour property is taken for sRGB."""
    data = encoded(AS_THEY_ARE, name, quality=100).replace(b"colrnclx", b"freenclx")
    assert error(shown(data)) < 4


def test_a_png_in_a_wide_space_is_converted() -> None:
    """The chunk cICP counts, and more than an ICC profile, sRGB, gAMA and cHRM."""
    wide = told(TO_2020)
    assert error(shown(png(wide, cicp(9, 13)))) < 2
    rivals = (gama(1.0), chrm(*SRGB_POINTS), png_chunk(b"sRGB", b"\0"))
    assert error(shown(png(wide, *rivals, cicp(9, 13), icc_profile=srgb_profile()))) < 2


@pytest.mark.parametrize("chunk", [cicp(9, 13, matrix=9), cicp(9, 16, full_range=0)])
def test_a_png_that_cannot_be_read_right_is_a_warning(chunk: bytes) -> None:
    """A cICP chunk for YCbCr, which no PNG has, or for a narrow range adds a warning."""
    assert error(shown(png(AS_THEY_ARE, chunk), warnings=1)) < 1.5


@pytest.mark.parametrize(
    ("image", "chunks"),
    [
        (told(TO_P3), (gama(1 / 2.2), chrm(*P3_POINTS))),
        (told(TO_P3), (chrm(*P3_POINTS),)),
        (told(TO_P3, gamma(1.8)), (gama(1 / 1.8), chrm(*P3_POINTS))),
        (told(((1, 0, 0), (0, 1, 0), (0, 0, 1)), gamma(1)), (gama(1.0),)),
    ],
)
def test_a_png_with_gamma_or_primaries_is_converted(image: Image.Image, chunks: tuple[bytes, ...]) -> None:
    """The chunks gAMA and cHRM count, together and alone."""
    assert error(shown(png(image, *chunks))) < 2


def test_transparent_colours_are_converted_before_white_shines_through() -> None:
    """Black that is half transparent is middle grey in any colour space, as in browsers."""
    for chunks in ((), (gama(1.0),), (gama(1 / 1.8),), (cicp(12, 8),)):
        data = png(Image.new("RGBA", (64, 64), (0, 0, 0, 128)), *chunks)
        assert_near(pixel(prepare(data, ImageOptions())), (127,) * 3, 3)


@pytest.mark.parametrize(
    "chunks",
    [
        (gama(0.45455),),
        (gama(0.45455), chrm(*SRGB_POINTS)),
        (gama(1.0), chrm(*P3_POINTS), png_chunk(b"sRGB", b"\0")),
    ],
)
def test_a_png_that_says_srgb_stays(chunks: tuple[bytes, ...]) -> None:
    """The usual gAMA and cHRM mean sRGB, to the bit, and the chunk sRGB counts more than others."""
    data = png(AS_THEY_ARE, *chunks)
    assert prepare(data, ImageOptions()).data == prepare(encoded(AS_THEY_ARE), ImageOptions()).data


@pytest.mark.parametrize("mode", ["L", "I;16", "P", "RGBA"])
def test_gamma_counts_in_every_mode(mode: str) -> None:
    """A linear grey of 55 looks like 128 in sRGB, whatever the mode."""
    grey = Image.new("L", (64, 64), 55)
    image = grey.convert("I").point(lambda value: value * 257).convert(mode) if mode == "I;16" else grey
    assert shown(png(image.convert(mode), gama(1.0)))[0] == pytest.approx((128, 128, 128), abs=1)


@pytest.mark.parametrize(
    "chunks",
    [
        (gama(0.0),),
        (gama(0.001),),
        (gama(20_000),),
        (chrm(*[0.0] * 8),),
        (chrm(*[0.3] * 8),),
        (chrm(*[1.0] * 8),),
        (chrm(20_000, 1e-5, *P3_POINTS[2:]),),
        (chrm(0.1, 0.8, *P3_POINTS[2:]),),
        (chrm(0.7, 0.28, 0.735, 0.265, 0.0, 1.0, 0.0366, 0.0001),),
        (chrm(*P3_POINTS[:2], 20_000, 1e-5, *P3_POINTS[4:]),),
    ],
)
def test_an_impossible_space_of_a_png_is_a_warning(chunks: tuple[bytes, ...]) -> None:
    """A gamma or primaries that cannot be leave the colours, and add a warning."""
    assert error(shown(png(AS_THEY_ARE, *chunks), warnings=1)) < 1.5


def camera_exif(index: str | None, space: int | None, order: str = "<") -> bytes:
    tags = Image.Exif()
    tags.endian = order
    if space is not None:
        tags.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ColorSpace] = space
    if index is not None:
        tags.get_ifd(ExifTags.IFD.Exif)[ExifTags.IFD.Interop] = {ExifTags.Interop.InteropIndex: index}
    return tags.tobytes()


@pytest.mark.parametrize(("index", "space"), [("R03", 0xFFFF), ("R03", None), (None, 2)])
@pytest.mark.parametrize(("name", "order"), [("JPEG", "<"), ("JPEG", ">"), ("WEBP", "<")])
def test_adobe_rgb_by_exif_is_converted(name: str, order: str, index: str | None, space: int | None) -> None:
    """A camera names Adobe RGB in the EXIF data alone, and its picture is not sent as it is."""
    image = told(TO_ADOBE, gamma(563 / 256))
    exact = _JPEG_EXACT if name == "JPEG" else {"lossless": True}
    data = encoded(image, name, exif=camera_exif(index, space, order), **exact)
    assert error(shown(data)) < 2
    assert not prepare(data, ImageOptions()).is_original


@pytest.mark.parametrize(
    ("index", "space"), [("R98", 1), ("R98", 0xFFFF), ("R03", 1), (None, 0xFFFF), (None, None)]
)
@pytest.mark.parametrize("order", ["<", ">"])
def test_other_exif_data_means_srgb(order: str, index: str | None, space: int | None) -> None:
    """sRGB and unknown spaces by EXIF leave the colours, and a JPEG is sent as it is."""
    data = encoded(AS_THEY_ARE, "JPEG", exif=camera_exif(index, space, order), **_JPEG_EXACT)
    prepared = prepare(data, ImageOptions())
    assert (prepared.is_original, prepared.warnings) == (True, ())


def test_a_profile_counts_more_than_exif() -> None:
    """A JPEG in sRGB by its profile is not taken for Adobe RGB."""
    exif = camera_exif("R03", 0xFFFF)
    data = encoded(AS_THEY_ARE, "JPEG", exif=exif, icc_profile=srgb_profile(), **_JPEG_EXACT)
    assert error(shown(data)) < 1.5


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_exif_does_not_change_other_modes(mode: str) -> None:
    """A grey or CMYK JPEG of such a camera has no warning and keeps its grey."""
    grey = Image.new("RGB", (64, 64), (128, 128, 128)).convert(mode)
    data = encoded(grey, "JPEG", exif=camera_exif("R03", 0xFFFF))
    assert shown(data)[0] == pytest.approx((128, 128, 128), abs=3)


def pieces(profile: bytes, count: int, *numbers: int) -> bytes:
    """A JPEG with these pieces of a profile, of which there should be `count` (ICC.1:2022 annex B.4)."""
    size = -(-len(profile) // count)
    data = encoded(AS_THEY_ARE, "JPEG", **_JPEG_EXACT)
    for number in reversed(numbers):
        piece = profile[(number - 1) * size : number * size]
        data = jpeg_with(data, 0xE2, b"ICC_PROFILE\0" + bytes((number, count)) + piece)
    return data


SWAPPED: tuple[Colour, ...] = tuple((green, red, blue) for red, green, blue in COLOURS)


@pytest.mark.parametrize("numbers", [(1, 2, 3), (3, 1, 2), (1, 2, 3, 1, 2, 3)])
def test_a_profile_in_pieces_is_joined(numbers: tuple[int, ...]) -> None:
    """The pieces of a profile may come in any order, and twice."""
    assert error(shown(pieces(swapped_profile(), 3, *numbers)), SWAPPED) < 2


def test_a_profile_behind_the_frame_header_counts() -> None:
    """A profile may come anywhere before the coded data."""
    data = pieces(swapped_profile(), 1, 1)
    size = 2 + int.from_bytes(data[4:6], "big")
    late = data.index(b"\xff\xc4")  # the Huffman tables come behind the frame header
    moved = data[:2] + data[2 + size : late] + data[2 : 2 + size] + data[late:]
    assert error(shown(moved), SWAPPED) < 2


@pytest.mark.parametrize("numbers", [(1,), (2,), (1, 3), (2, 2), (1, 2, 4)])
def test_half_a_profile_is_a_warning(numbers: tuple[int, ...]) -> None:
    """A JPEG whose profile is incomplete has a warning, also if the file is sent as it is."""
    prepared = prepare(pieces(swapped_profile(), 3, *numbers), ImageOptions())
    assert prepared.warnings == (
        "its colour profile is incomplete: a piece is missing; colours may be wrong",
    )
    assert prepared.is_original


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("cut", [100, 400])
def test_a_cut_profile_is_a_warning(name: str, cut: int) -> None:
    """A profile that is shorter than it says is ignored, with a warning, in every format."""
    data = encoded(AS_THEY_ARE, name, icc_profile=swapped_profile()[:-cut])
    assert prepare(data, ImageOptions()).warnings == (
        "its colour profile is incomplete; colours may be wrong",
    )


def test_a_damaged_profile_of_a_png_is_a_warning() -> None:
    """A profile that cannot be decompressed is ignored, with a warning."""
    data = png(AS_THEY_ARE, png_chunk(b"iCCP", b"name\0\0" + b"no zlib stream"))
    assert prepare(data, ImageOptions()).warnings == ("its colour profile is damaged; colours may be wrong",)


def test_a_profile_without_its_padding_is_whole() -> None:
    """Some programs leave out the last bytes, which only fill up a table; that is no reason for a warning."""
    image = Image.new("RGB", (64, 64), (220, 30, 30))
    for lost, warned in ((1, False), (3, False), (4, True)):
        data = encoded(image, "PNG", icc_profile=swapped_profile()[:-lost])
        assert bool(prepare(data, ImageOptions()).warnings) is warned
