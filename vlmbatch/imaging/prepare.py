"""Turns the bytes of any image file into the JPEG that is sent to a model.

It decodes from memory and never touches a file, a network or the run.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import BinaryIO

from PIL import Image, ImageFile
from pybase64 import b64encode

from vlmbatch.config.groups import ImageOptions
from vlmbatch.errors import ImageError
from vlmbatch.images import PreparedImage, unread
from vlmbatch.imaging import heif_structure, jpeg_structure, tiff_structure
from vlmbatch.imaging.cicp import Cicp
from vlmbatch.imaging.colour import in_plain_colours, on_white, to_srgb
from vlmbatch.imaging.colour_key import narrow_key
from vlmbatch.imaging.colour_space import colour_space_of
from vlmbatch.imaging.dark_colours import brightened, lower_bytes
from vlmbatch.imaging.decode import OutOfMemory, check_pixels, decoding
from vlmbatch.imaging.decode_cost import decode_bytes
from vlmbatch.imaging.encode import MEDIA_TYPE, encode
from vlmbatch.imaging.formats import HEAD_BYTES, sniff
from vlmbatch.imaging.frames import first_loaded, frames_in, preview_only
from vlmbatch.imaging.geometry import check_side, padded, upright
from vlmbatch.imaging.heif_orientation import check_orientation
from vlmbatch.imaging.jpeg_damage import check_damage
from vlmbatch.imaging.jpeg_end import check_end
from vlmbatch.imaging.orientation import (
    UPRIGHT,
    announced_orientation,
    orientation_of,
    upright_size,
)
from vlmbatch.imaging.passthrough import passed
from vlmbatch.imaging.pixel_aspect import square_size
from vlmbatch.imaging.png_structure import mending
from vlmbatch.imaging.resize import draft, shrunk
from vlmbatch.imaging.sizing import Sizing, sizing_of
from vlmbatch.imaging.tiff_pixels import TiffPixels
from vlmbatch.imaging.tiff_rewrite import single_page
from vlmbatch.imaging.tiff_structure import TiffStructure
from vlmbatch.imaging.tone_mapping import to_sdr
from vlmbatch.imaging.transparency import check_visible
from vlmbatch.protocols import Room

__all__ = ["ImageHeader", "check_side", "inspect", "prepare", "uniform"]


UNIFORM_SIDE = 224
UNIFORM_QUALITY = 85


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageHeader:
    """The header of an image file; the sides, in pixels, are those of the upright picture.

    `square` is the size with square pixels, by which it is shrunk. `frames` is the number of its pages or
    frames, 1 if only a file was given and not its bytes.
    """

    format: str
    mode: str
    width: int
    height: int
    square: tuple[int, int]
    frames: int = 1


@contextmanager
def _unlimited(_weight: int | None) -> Iterator[None]:
    """A Room without a limit."""
    yield


def inspect(file: BinaryIO | bytes, max_pixels_in: int | None = None) -> ImageHeader:
    """Read only the header of an open, seekable file or of its bytes; a broken body is not noticed.

    Raises:
        ImageError: the image cannot be opened, or has more pixels than `max_pixels_in`.
    """
    if isinstance(file, bytes):
        return mending(lambda data, _: _inspect(data, max_pixels_in), file)
    return _inspect(file, max_pixels_in)


def _inspect(file: BinaryIO | bytes, max_pixels_in: int | None) -> ImageHeader:
    pages = None
    if isinstance(file, bytes):
        file, pages = _main_page(file)
    with decoding(file) as image:
        check_pixels(image.size, max_pixels_in)
        orientation = orientation_of(image, [])
        width, height = upright_size(image.size, image.format, orientation)
        frames = frames_in(image, file, pages) if isinstance(file, bytes) else 1
        return ImageHeader(
            format=image.format or "",
            mode=image.mode,
            width=width,
            height=height,
            square=upright_size(square_size(image), image.format, orientation),
            frames=frames,
        )


def _main_page(data: bytes) -> tuple[bytes, TiffStructure | None]:
    """The file, and the pages of a TIFF; without the other pages if previews come before the picture."""
    if sniff(data[:HEAD_BYTES]) != "TIFF":
        return data, None
    pages = tiff_structure.survey(data)
    return (data if pages.at is None else single_page(data, pages.at)), pages


def prepare(
    data: bytes, options: ImageOptions, room: Room = _unlimited, sizing: Sizing | None = None
) -> PreparedImage:
    """Decode, resize, rotate to upright and encode one picture; blocks, and may run in many threads at once.

    `sizing` gives the size to send; without it, the options do. The picture is never enlarged, but padded
    with white if it is too thin for a model, and a fax gets square pixels. Transparency becomes white,
    colours become sRGB, an animation gives its first frame, and no metadata is left. A plain JPEG that needs
    none of this is not encoded again and only loses its metadata. The original sides in the result are those
    of the upright picture.

    `room` waits until enough memory for decoding is free. If memory does not suffice, the picture is tried
    once more while no other is decoded.

    Raises:
        ImageError: it cannot be decoded completely (bad_image), has too many pixels (too_large), or has
            a shape that no JPEG can have (bad_shape).
        ResourceError: the machine is out of descriptors or memory: a failure of the run.
    """
    sizing = sizing or sizing_of(options)
    with suppress(MemoryError, OutOfMemory):
        return mending(partial(_prepare, options, sizing, room), data)
    try:
        return mending(partial(_prepare, options, sizing, lambda _: room(None)), data)
    except MemoryError as error:
        raise OutOfMemory from error


def uniform(rgb: tuple[int, int, int]) -> PreparedImage:
    """A small picture of one colour: 224x224 pixels, which every vision model accepts."""
    size = (UNIFORM_SIDE, UNIFORM_SIDE)
    encoded = encode(Image.new("RGB", size, rgb), UNIFORM_QUALITY)
    return _prepared(encoded, size, size, 1, [])


def _prepare(
    options: ImageOptions, sizing: Sizing, room: Room, data: bytes, warnings: list[str]
) -> PreparedImage:
    name = sniff(data[:HEAD_BYTES])
    structure = jpeg_structure.survey(data) if name == "JPEG" else None
    boxes = heif_structure.survey(data) if name in ("AVIF", "HEIF") else None
    data, pages = _main_page(data)
    with ExitStack() as held:
        with decoding(data) as image:
            declared = image.size
            check_pixels(declared, options.max_pixels_in)
            if structure is not None and structure.whole:
                check_damage(data, structure, room, warnings)
            frames = frames_in(image, data, pages)
            warnings += [*unread(frames), *preview_only(pages, declared)]
            space = colour_space_of(image, data, boxes, warnings)
            if boxes is not None:
                check_orientation(image, boxes, warnings)
            target = _target(image, sizing)
            if target == declared and (original := passed(data, image, structure, space, room)) is not None:
                picture = _prepared(original, declared, declared, frames, warnings)
                return replace(picture, is_original=True)
            if structure is not None and not structure.whole:
                raise ImageError("the JPEG is truncated: its end mark is missing")
            rest = draft(image, target)
            if structure is not None and structure.end:
                check_end(image, declared[1], structure.end, warnings)
            held.enter_context(room(decode_bytes(image, declared, target, structure)))
            lower = lower_bytes(image)
            loaded = first_loaded(image)
            if isinstance(image, TiffPixels):
                warnings += image.warnings
            if image.format == "TIFF" and image.size == declared[::-1]:  # Pillow rotated it by its XMP data
                declared, target = image.size, (target[1], target[0])
            orientation = orientation_of(image, warnings)
            seen = upright_size(declared, image.format, orientation)
            narrow_key(loaded, data, warnings)
            bright = brightened(loaded, data, lower, warnings)
            small = shrunk(in_plain_colours(bright, warnings), target, rest)
        del image, loaded, bright
        # costly steps run on the small picture: to rotate the large one first would take three times as long,
        # and to apply its colour profile five times
        if isinstance(space, Cicp):
            small, space = to_sdr(small, space, warnings), None
        plain = on_white(small)
        check_visible(small, plain, frames, warnings)
        plain = to_srgb(plain, space, warnings)
        plain = padded(upright(plain, orientation), warnings)
        encoded = encode(plain, options.quality)
    return _prepared(encoded, plain.size, seen, frames, warnings)


def _target(image: ImageFile.ImageFile, sizing: Sizing) -> tuple[int, int]:
    """The size at which to send an opened image, with its sides in the order of the file."""
    orientation = UPRIGHT if sizing.is_symmetric else announced_orientation(image)
    square = square_size(image)
    seen = upright_size(square, image.format, orientation)
    wide, high = sizing(seen)
    check_side((wide, high))
    return (wide, high) if seen == square else (high, wide)


def _prepared(
    encoded: bytes,
    size: tuple[int, int],
    original: tuple[int, int],
    frames: int,
    warnings: list[str],
) -> PreparedImage:
    return PreparedImage(
        data=b64encode(encoded),
        media_type=MEDIA_TYPE,
        width=size[0],
        height=size[1],
        original_width=original[0],
        original_height=original[1],
        sent_bytes=len(encoded),
        frames=frames,
        warnings=tuple(warnings),
    )
