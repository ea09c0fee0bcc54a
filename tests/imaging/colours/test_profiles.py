"""Colour profiles and scans whose numbers have an unusual meaning."""

import os
import struct
from concurrent.futures import ThreadPoolExecutor

import pytest
from pictures import (
    BLACK,
    GREEN,
    OPTIONS,
    RED,
    WHITE,
    assert_near,
    encoded,
    pixel,
    srgb_profile,
    swapped_profile,
)
from PIL import Image, ImageCms

from vlmbatch.imaging.prepare import prepare

LINEAR_55 = (128, 128, 128)
"""The sRGB value of 55 if numbers are proportional to light."""


def named_srgb(profile: bytes) -> bytes:
    return profile.replace("Test".encode("utf-16-be"), "sRGB".encode("utf-16-be"))


def linear_profile() -> bytes:
    """sRGB's own profile, name and primaries, with a straight line in place of its curve."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    at = profile.index(b"para")
    return profile[:at] + b"para" + bytes(8) + struct.pack(">i", 65536) + bytes(16) + profile[at + 32 :]


def gray_profile() -> bytes:
    """A profile for grey alone, also with a straight line as its curve (ICC.1:2010 section 8.4.4)."""
    d50 = struct.pack(">iii", 63190, 65536, 54061)
    tags = {b"wtpt": b"XYZ \0\0\0\0" + d50, b"kTRC": b"curv\0\0\0\0" + bytes(4)}
    table, body = struct.pack(">I", len(tags)), b""
    for name, value in tags.items():
        table += struct.pack(">4sII", name, 128 + 4 + 12 * len(tags) + len(body), len(value))
        body += value
    size = 128 + len(table) + len(body)
    head = struct.pack(">I4sI4s4s4s12x4s", size, b"lcms", 0x02400000, b"mntr", b"GRAY", b"XYZ ", b"acsp")
    return (head + bytes(28) + d50).ljust(128, b"\0") + table + body


def test_the_name_of_a_profile_does_not_matter() -> None:
    """A profile with other primaries or another curve is applied even if its name is sRGB."""
    red = encoded(Image.new("RGB", (64, 64), RED), icc_profile=named_srgb(swapped_profile()))
    assert_near(pixel(prepare(red, OPTIONS)), GREEN)
    gray = encoded(Image.new("RGB", (64, 64), (55, 55, 55)), icc_profile=linear_profile())
    assert_near(pixel(prepare(gray, OPTIONS)), LINEAR_55)


def test_srgb_itself_changes_nothing() -> None:
    """The pixels of a picture with an sRGB profile are sent unchanged, to the bit."""
    picture = Image.radial_gradient("L").convert("RGB")
    assert (
        prepare(encoded(picture, icc_profile=srgb_profile()), OPTIONS).data
        == prepare(encoded(picture), OPTIONS).data
    )


def test_cached_profiles_do_not_mix() -> None:
    """Eight threads that prepare pictures with three profiles get the right colours for each."""
    wanted = {srgb_profile(): RED, swapped_profile(): GREEN, named_srgb(swapped_profile()): GREEN}
    pictures = {
        encoded(Image.new("RGB", (64, 64), RED), name, icc_profile=profile): colour
        for profile, colour in wanted.items()
        for name in ("JPEG", "PNG")
    }

    def one(data: bytes) -> None:
        assert_near(pixel(prepare(data, OPTIONS)), pictures[data])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, [*pictures] * 20))


@pytest.mark.parametrize("mode", ["L", "LA", "P", "transparent L"])
def test_a_gray_profile_counts_however_gray_is_stored(mode: str) -> None:
    """A grey profile is applied also if transparency or a palette turns the picture into RGB first."""
    image = Image.new("L", (64, 64), 55)
    options = {"transparency": 3} if mode.startswith("transparent") else {}
    data = encoded(image.convert(mode.split()[-1]), icc_profile=gray_profile(), **options)
    prepared = prepare(data, OPTIONS)
    assert prepared.warnings == ()
    assert_near(pixel(prepared), LINEAR_55)


@pytest.mark.parametrize("name", ["PNG", "JPEG", "WEBP"])
def test_a_profile_of_more_than_a_megabyte_is_used(name: str) -> None:
    """A profile of 1.2 MB, as printers have, is applied; by default Pillow refuses such a PNG."""
    profile = swapped_profile()
    large = struct.pack(">I", len(profile) + 1_200_000) + profile[4:] + os.urandom(1_200_000)
    data = encoded(Image.new("RGB", (64, 64), RED), name, icc_profile=large)
    assert_near(pixel(prepare(data, OPTIONS)), GREEN)


@pytest.mark.parametrize("mode", ["L", "I;16", "F"])
@pytest.mark.parametrize("white_is_zero", [False, True])
def test_a_negative_scan_is_turned_over(mode: str, white_is_zero: bool) -> None:
    """A TIFF that counts from white (fax, film) is inverted, with 8 bits, 16 bits and floats."""
    white = {"L": 255, "I;16": 65535, "F": 1.0}[mode]
    image = Image.new(mode, (64, 64), 0)
    image.paste(white, (32, 0, 64, 64))
    if white_is_zero and mode == "L":
        image = image.point(lambda value: 255 - value)  # Pillow inverts it when it writes it, too
    data = encoded(image, "TIFF", tiffinfo={262: 0 if white_is_zero else 1})
    left, right = (pixel(prepare(data, OPTIONS), x) for x in (0.25, 0.75))
    assert_near(left, WHITE if white_is_zero else BLACK)
    assert_near(right, BLACK if white_is_zero else WHITE)
