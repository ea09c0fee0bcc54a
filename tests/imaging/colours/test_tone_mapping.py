"""HDR pictures in PQ and HLG look right in sRGB."""

import itertools
import struct
from collections.abc import Callable

import pytest
from colour_patches import (
    TO_2020,
    TO_P3,
    Light,
    avif,
    error,
    hlg,
    light,
    patches,
    pq,
    samples,
    shown,
    srgb,
    times,
)
from pictures import HAS_HEIF, Colour, assert_near, encoded, png_chunk, sent, srgb_profile
from PIL import Image

from vlmbatch.config.groups import ImageOptions
from vlmbatch.imaging.prepare import prepare

PQ, HLG = 16, 18
COLOURS: tuple[Colour, ...] = ((210, 90, 80), (90, 170, 80), (70, 90, 190), (245, 245, 245), (128, 128, 128))
"""Not too strong: 8 bits of PQ are coarse where sRGB has almost none of a channel."""
TO_SRGB = ((1, 0, 0), (0, 1, 0), (0, 0, 1))
Matrix = tuple[tuple[float, ...], ...]


def pq_signals(display: Light) -> Light:
    return tuple(map(pq, display))


SIGNALS: dict[int, Callable[[Light], Light]] = {PQ: pq_signals, HLG: hlg}


def hdr(transfer: int, matrix: Matrix = TO_2020, colours: tuple[Colour, ...] = COLOURS) -> Image.Image:
    """Colours of sRGB in HDR, with white at 203 cd/m2."""
    return patches([samples(SIGNALS[transfer](times(matrix, light(colour)))) for colour in colours])


def greys(transfer: int, *nits: float) -> Image.Image:
    return patches([samples(SIGNALS[transfer]((value / 203,) * 3)) for value in nits])


def png(image: Image.Image, transfer: int) -> bytes:
    """A PNG without loss; AVIF cannot keep all colours."""
    data = encoded(image)
    return data[:33] + png_chunk(b"cICP", bytes((9, transfer, 0, 1))) + data[33:]


@pytest.mark.parametrize(
    ("primaries", "transfer", "matrix"),
    [(9, PQ, TO_2020), (12, PQ, TO_P3), (1, PQ, TO_SRGB), (9, HLG, TO_2020)],
)
def test_a_picture_not_brighter_than_white_is_exact(primaries: int, transfer: int, matrix: Matrix) -> None:
    """Colours up to white, at 203 cd/m2, are those of sRGB, without a warning."""
    assert error(shown(avif(hdr(transfer, matrix), primaries, transfer)), COLOURS) < 3


@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_a_png_may_be_hdr(transfer: int) -> None:
    """The chunk cICP of a PNG names PQ and HLG, too."""
    assert error(shown(png(hdr(transfer), transfer)), COLOURS) < 2


@pytest.mark.skipif(not HAS_HEIF, reason="needs pillow-heif")
@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_a_heic_may_be_hdr(transfer: int) -> None:
    """A HEIC names PQ and HLG like an AVIF."""
    codes = {"color_primaries": 9, "transfer_characteristics": transfer, "matrix_coefficients": 9}
    data = encoded(hdr(transfer), "HEIF", quality=100, chroma=444, save_nclx_profile=True, **codes)
    assert error(shown(data), COLOURS) < 3


@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_bright_tones_are_compressed(transfer: int) -> None:
    """Up to the peak all tones stay apart and in order, those under 80 cd/m2 stay as they are."""
    nits = (5, 20, 50, 80, 203, 300, 400, 500, 600, 700, 800, 950)
    found = [colour[1] for colour in shown(png(greys(transfer, *nits), transfer), warnings=1)]
    assert all(later > earlier for earlier, later in itertools.pairwise(found)), found
    assert found[:4] == pytest.approx([255 * srgb(value / 203) for value in nits[:4]], abs=3)
    assert 200 < found[4] < 250
    assert found[-1] >= 250


def test_the_warning_says_how_bright_it_was() -> None:
    """The warning names the brightness, rounded to two digits."""
    (warning,) = prepare(png(greys(PQ, 10, 100, 4000), PQ), ImageOptions()).warnings
    assert warning == "HDR: tones brighter than white, up to 4,000 cd/m2, were compressed"


def test_bright_colours_stay_colours() -> None:
    """A bright colour keeps the order of its channels, and is not clipped to white or to another colour."""
    bright = tuple(value * 3 for value in light((220, 160, 100)))
    image = patches([samples(pq_signals(values)) for values in (times(TO_2020, bright), (1000 / 203,) * 3)])
    red, green, blue = shown(png(image, PQ), warnings=1)[0]
    assert 235 < red < 255
    assert red - green > 10
    assert green - blue > 25


@pytest.mark.parametrize("nits", [210, 260, 320])
def test_a_picture_little_brighter_than_white_changes_little(nits: float) -> None:
    """Overshoot at the edges of a compressed picture does not darken its white paper."""
    (white, _) = shown(png(greys(PQ, 185, nits), PQ), warnings=int(nits > 220))
    assert white[1] == pytest.approx(255 * srgb(185 / 203), abs=8)


def test_glints_do_not_darken_a_picture() -> None:
    """A few pixels of great brightness do not count, and become white."""
    image = greys(PQ, *[203] * 6)
    image.paste((255, 255, 255), (100, 10, 103, 13))
    prepared = prepare(png(image, PQ), ImageOptions(quality=100))
    assert prepared.warnings == ()
    assert_near(sent(prepared).getpixel((20, 20)), (255, 255, 255), 4)  # type: ignore[arg-type]


def test_the_background_of_a_transparent_picture_is_white() -> None:
    """White behind a transparent HDR picture is no light of the picture, and half a pixel is half white."""
    image = hdr(PQ, colours=((0, 0, 0), (128, 128, 128), (0, 0, 0))).convert("RGBA")
    alpha = Image.new("L", image.size, 255)
    alpha.paste(0, (0, 0, 40, 40))
    alpha.paste(128, (80, 0, 120, 40))
    image.putalpha(alpha)
    found = shown(png(image, PQ))
    for colour, wanted in zip(found, (255, 128, 127), strict=True):
        assert_near(colour, (wanted, wanted, wanted), 3)


def test_a_grey_picture_may_be_hdr() -> None:
    """A grey PNG in PQ is converted, too."""
    grey = greys(PQ, *(203 * value for (value, _, _) in map(light, [(60,) * 3, (128,) * 3])))  # type: ignore[arg-type]
    assert [colour[0] for colour in shown(png(grey.convert("L"), PQ))] == pytest.approx([60, 128], abs=3)


def profile_with_codes(primaries: int, transfer: int) -> bytes:
    """An sRGB profile that names code points beside its curves, in place of its copyright."""
    profile = srgb_profile()
    at = profile.index(b"cprt")
    code = b"cicp" + bytes((0, 0, 0, 0, primaries, transfer, 0, 1))
    entry = b"cicp" + struct.pack(">II", len(profile), len(code))
    longer = struct.pack(">I", len(profile) + len(code)) + profile[4:at] + entry + profile[at + 12 :]
    return longer + code


@pytest.mark.parametrize("name", ["PNG", "JPEG", "AVIF"])
def test_a_profile_may_name_hdr(name: str) -> None:
    """An ICC profile with code points of HDR counts as HDR, and with those of sRGB as a profile."""
    exact = {
        "PNG": {},
        "JPEG": {"quality": 100, "subsampling": 0},
        "AVIF": {"quality": 100, "subsampling": "4:4:4"},
    }[name]
    data = encoded(hdr(PQ), name, icc_profile=profile_with_codes(9, PQ), **exact)
    assert error(shown(data), COLOURS) < 4
    plain = encoded(patches(list(COLOURS)), name, icc_profile=profile_with_codes(1, 13), **exact)
    assert error(shown(plain), COLOURS) < 2
