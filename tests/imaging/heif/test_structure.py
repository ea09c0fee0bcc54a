"""Boxes of AVIF and HEIC: what counts, and what hostile ones do."""

import random
import struct

import pytest
from colour_patches import COLOURS, avif, patches
from pictures import HAS_HEIF, RED, SMALL, assert_near, encoded, outcome, pixel, quarters
from PIL import ExifTags, Image

from vlmbatch.config.groups import ImageOptions
from vlmbatch.imaging.colours.cicp import Cicp
from vlmbatch.imaging.heif.structure import HeifStructure, survey
from vlmbatch.imaging.prepare import prepare

NCLX = b"nclx" + struct.pack(">HHHB", 9, 16, 9, 0x80)
PLAIN_AVIF = encoded(SMALL, "AVIF", speed=10)


def box(kind: bytes, *bodies: bytes) -> bytes:
    body = b"".join(bodies)
    return struct.pack(">I4s", len(body) + 8, kind) + body


def full_box(kind: bytes, *bodies: bytes, version: int = 0, flags: int = 0) -> bytes:
    return box(kind, struct.pack(">I", version << 24 | flags), *bodies)


def associations(item: int, numbers: list[int], *, version: int = 0, wide: bool = False) -> bytes:
    """An ipma box with a foreign item and this one (ISO/IEC 23008-12 section 9.3.1)."""
    body = struct.pack(">I", 2)
    for name, given in ((item + 1, [1]), (item, numbers)):
        body += struct.pack(">IB" if version else ">HB", name, len(given))
        body += b"".join(struct.pack(">H" if wide else ">B", number) for number in given)
    return full_box(b"ipma", body, version=version, flags=int(wide))


def file(*properties: bytes, item: int = 7, version: int = 0, wide: bool = False) -> bytes:
    """The boxes of a file whose primary item has all of these properties but the first."""
    primary = full_box(b"pitm", struct.pack(">I" if version else ">H", item), version=version)
    essential = 0x8000 if wide else 0x80
    numbers = [number | essential for number in range(2, len(properties) + 1)]
    table = associations(item, numbers, version=version, wide=wide)
    return box(b"ftyp", b"avif") + full_box(b"meta", primary, box(b"iprp", box(b"ipco", *properties), table))


@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize("wide", [False, True])
def test_the_properties_of_the_primary_item_count(version: int, wide: bool) -> None:
    """Properties of other items do not count; items and properties may have wide numbers."""
    foreign = box(b"colr", b"nclx" + struct.pack(">HHHB", 12, 13, 6, 0x80))
    data = file(foreign, box(b"colr", b"prof"), box(b"colr", NCLX), version=version, wide=wide)
    assert survey(data) == HeifStructure(Cicp(9, 16), has_turn=False)
    assert survey(file(box(b"irot", b"\1"), box(b"colr", NCLX))) == HeifStructure(Cicp(9, 16), has_turn=False)


@pytest.mark.parametrize("kind", [b"irot", b"imir"])
def test_a_turn_is_found(kind: bytes) -> None:
    """Both ways to turn a picture are found, also one that says upright."""
    assert survey(file(box(b"free"), box(kind, b"\0"))).has_turn


def test_a_sequence_has_the_colours_of_its_track() -> None:
    """A file with tracks alone names its colours in the description of its frames."""
    entry = box(b"av01", bytes(78), box(b"av1C", bytes(4)), box(b"colr", NCLX))
    path = full_box(b"stsd", struct.pack(">I", 1), entry)
    for kind in (b"stbl", b"minf", b"mdia", b"trak", b"moov"):
        path = box(kind, path)
    assert survey(box(b"ftyp", b"avis") + path).cicp == Cicp(9, 16)


def test_long_and_open_sizes_are_read() -> None:
    """A size of 1 is followed by one of 64 bits, and a size of 0 means up to the end."""
    data = file(box(b"free"), box(b"colr", NCLX))
    at = data.index(b"meta") - 4
    size = len(data) - at
    long = data[:at] + struct.pack(">I4sQ", 1, b"meta", size + 8) + data[at + 8 :]
    last = data[:at] + bytes(4) + data[at + 4 :]
    assert survey(long).cicp == survey(last).cicp == Cicp(9, 16)


NESTED = b"".join(struct.pack(">I4s", 80_000 - 8 * depth, b"meta") for depth in range(10_000))
MANY = full_box(b"meta", full_box(b"pitm", b"\0\1"), box(b"iprp", box(b"ipco", box(b"free") * 200_000)))
LONG_TABLE = full_box(
    b"meta",
    full_box(b"pitm", b"\0\1"),
    box(b"iprp", box(b"ipco", box(b"free")), full_box(b"ipma", b"\xff" * 4, b"\0\2\0" * 2_000_000)),
)


MANY_TABLES = full_box(
    b"meta",
    full_box(b"pitm", b"\0\1"),
    box(b"iprp", full_box(b"ipma", b"\xff" * 4, b"\0\2\0" * 80_000) * 30, box(b"ipco", box(b"free"))),
)


@pytest.mark.parametrize("data", [b"", b"\0", bytes(1000), NESTED, MANY, LONG_TABLE, MANY_TABLES])
def test_hostile_boxes_cost_little(data: bytes) -> None:
    """Depth, numbers and lengths without end are cut off, and count as nothing."""
    assert survey(data) == HeifStructure()


def test_mutated_boxes_never_raise() -> None:
    """Any change of the boxes of a file gives an answer, and never an exception."""
    chance = random.Random(5)
    files = [file(box(b"free"), box(b"colr", NCLX)), PLAIN_AVIF[:400]]
    for number in range(4000):
        data = bytearray(files[number % 2])
        for _ in range(chance.randrange(1, 6)):
            data[chance.randrange(len(data))] = chance.choice((0, 1, 7, 0x7F, 0x80, 0xFF))
        survey(bytes(data[: chance.randrange(len(data)) if number % 5 == 0 else None]))


@pytest.mark.parametrize("size", [0, 1, 7, 18, 20, 1000, 0x7FFFFFFF, 0xFFFFFFFF])
def test_a_colour_box_of_any_size_costs_its_own_record(size: int) -> None:
    """A colour property with a lie as its size ends in a picture or an ImageError."""
    data = avif(patches(list(COLOURS)), 9, 16)
    at = data.index(b"colr") - 4
    outcome(data[:at] + struct.pack(">I", size) + data[at + 4 :])


def with_exif(name: str, orientation: int, *, turned: bool = False) -> bytes:
    """A picture whose EXIF data has this orientation; if `turned`, a property turns it to the right.

    Both writers leave an orientation out of the EXIF data, so it takes the place of another tag afterwards.
    """
    tags = Image.Exif()
    tags[ExifTags.Base.ImageWidth] = 1
    if turned:
        tags[ExifTags.Base.Orientation] = 6  # Pillow makes a property of it
    data = encoded(quarters(128, 96), name, exif=tags.tobytes())
    entry = struct.pack(">HHII", ExifTags.Base.ImageWidth, 4, 1, 1)
    assert data.count(entry) == 1
    return data.replace(entry, struct.pack(">HHIHH", ExifTags.Base.Orientation, 3, 1, orientation, 0))


def turned_heic(orientation: int) -> bytes:
    """The same as HEIC, whose writer turns the pixels, with a property in place of one that only informs."""
    data = with_exif("HEIF", orientation)
    at = data.index(b"pixi") - 4
    size = int.from_bytes(data[at : at + 4], "big")
    return data[:at] + struct.pack(">I4sB", size, b"irot", 3).ljust(size, b"\0") + data[at + size :]


FORMATS = ["AVIF", pytest.param("HEIF", marks=pytest.mark.skipif(not HAS_HEIF, reason="needs pillow-heif"))]


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("orientation", [2, 3, 6, 8])
def test_an_orientation_in_exif_alone_is_a_warning(name: str, orientation: int) -> None:
    """AVIF and HEIC are turned by properties alone; EXIF data that says otherwise adds a warning."""
    prepared = prepare(with_exif(name, orientation), ImageOptions())
    (warning,) = prepared.warnings
    assert f"only its EXIF data says that it is turned (orientation {orientation})" in warning
    assert (prepared.width, prepared.height) == (128, 96)
    assert_near(pixel(prepared, 0.1, 0.1), RED)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("orientation", [0, 1, 9])
def test_exif_data_of_an_upright_picture_is_fine(name: str, orientation: int) -> None:
    """An orientation that means upright, or nothing, adds no warning."""
    assert prepare(with_exif(name, orientation), ImageOptions()).warnings == ()


@pytest.mark.parametrize("name", FORMATS)
def test_a_turned_picture_is_turned_once(name: str) -> None:
    """A picture that its property turns is not turned again by its EXIF data, and has no warning."""
    data = turned_heic(6) if name == "HEIF" else with_exif(name, 6, turned=True)
    prepared = prepare(data, ImageOptions())
    assert prepared.warnings == ()
    assert (prepared.width, prepared.height) == (96, 128)
    assert_near(pixel(prepared, 0.9, 0.1), RED)


@pytest.mark.skipif(not HAS_HEIF, reason="needs pillow-heif")
def test_broken_exif_data_does_not_matter() -> None:
    """EXIF data that cannot be read adds no warning about turning."""
    data = with_exif("HEIF", 6)
    at = data.index(b"MM\0*")
    broken = data[: at + 4] + b"\xff" * 12 + data[at + 16 :]
    assert not any("turned" in warning for warning in prepare(broken, ImageOptions()).warnings)
