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
from vlmbatch.images import PreparedImage, unread
from vlmbatch.imaging.colours.plain import in_plain_colours
from vlmbatch.imaging.colours.space import colour_space_of
from vlmbatch.imaging.colours.srgb import in_srgb
from vlmbatch.imaging.decode import OutOfMemory, check_pixels, decoding
from vlmbatch.imaging.decode_cost import decode_bytes
from vlmbatch.imaging.encode import MEDIA_TYPE, encode
from vlmbatch.imaging.frames import frames_in
from vlmbatch.imaging.geometry import check_side, padded, upright
from vlmbatch.imaging.heif.orientation import check_orientation
from vlmbatch.imaging.jpeg.damage import check_damage
from vlmbatch.imaging.jpeg.end import check_end
from vlmbatch.imaging.jpeg.passthrough import passed
from vlmbatch.imaging.loading import loaded
from vlmbatch.imaging.orientation import UPRIGHT, announced_orientation, orientation_of, upright_size
from vlmbatch.imaging.png.chunks import check_zeros, without_broken_chunks
from vlmbatch.imaging.resize import draft, shrunk
from vlmbatch.imaging.sizing import Sizing, sizing_of
from vlmbatch.imaging.survey import Survey, survey
from vlmbatch.imaging.tiff.pixel_aspect import square_size
from vlmbatch.imaging.tiff.structure import check_preview
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
        return without_broken_chunks(lambda data, _: _inspect(data, max_pixels_in), file)
    return _inspect(file, max_pixels_in)


def _inspect(file: BinaryIO | bytes, max_pixels_in: int | None) -> ImageHeader:
    found = survey(file) if isinstance(file, bytes) else None
    with decoding(found.data if found else file) as image:
        check_pixels(image.size, max_pixels_in)
        orientation = orientation_of(image, [])
        width, height = upright_size(image.size, image.format, orientation)
        return ImageHeader(
            format=image.format or "",
            mode=image.mode,
            width=width,
            height=height,
            square=upright_size(square_size(image), image.format, orientation),
            frames=frames_in(image, found) if found else 1,
        )


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
        return without_broken_chunks(partial(_prepare, options, sizing, room), data)
    try:
        return without_broken_chunks(partial(_prepare, options, sizing, lambda _: room(None)), data)
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
    file = survey(data)
    with ExitStack() as held:
        with decoding(file.data) as image:
            declared = image.size
            check_pixels(declared, options.max_pixels_in)
            _check(image, file, room, warnings)
            frames = frames_in(image, file)
            warnings += unread(frames)
            space = colour_space_of(image, file, warnings)
            target = _target(image, sizing)
            if target == declared and (original := passed(image, file, space, room)) is not None:
                same = _prepared(original, declared, declared, frames, warnings)
                return replace(same, is_original=True)
            rest = draft(image, target)
            if file.jpeg:
                check_end(image, declared[1], file.jpeg, warnings)
            held.enter_context(room(decode_bytes(image, declared, target, file.jpeg) + file.copied))
            picture = loaded(image, file.data, warnings)
            if image.format == "TIFF" and image.size == declared[::-1]:  # Pillow rotated it by its XMP data
                declared, target = image.size, (target[1], target[0])
            orientation = orientation_of(image, warnings)
            seen = upright_size(declared, image.format, orientation)
            small = shrunk(in_plain_colours(picture, warnings), target, rest)
        del image, picture
        # costly steps run on the small picture: to rotate the large one first would take three times as long,
        # and to apply its colour profile five times
        plain = in_srgb(small, space, frames, warnings)
        plain = padded(upright(plain, orientation), warnings)
        encoded = encode(plain, options.quality)
    return _prepared(encoded, plain.size, seen, frames, warnings)


def _check(image: ImageFile.ImageFile, file: Survey, room: Room, warnings: list[str]) -> None:
    """Refuse an opened file that is damaged, and warn about one that viewers show in another way."""
    if image.format == "PNG":
        check_zeros(file.data)
    if file.jpeg:
        check_damage(file.data, file.jpeg, room, warnings)
    if file.tiff:
        check_preview(file.tiff, image.size, warnings)
    if file.heif:
        check_orientation(image, file.heif, warnings)


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
