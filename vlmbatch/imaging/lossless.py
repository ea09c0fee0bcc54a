"""Turns a PIL image of a caller into the bytes of an image file, without loss."""

import threading
from contextlib import suppress
from io import BytesIO

from PIL import Image

from vlmbatch.errors import ImageError, ResourceError, VlmbatchError
from vlmbatch.imaging.colours.space import profile_of_pixels
from vlmbatch.imaging.decode import OutOfMemory, check_pixels
from vlmbatch.imaging.geometry import upright
from vlmbatch.imaging.gif.screen import on_white_screen
from vlmbatch.imaging.orientation import orientation_of

_TIFF_MODES = frozenset(("1", "L", "LA", "RGB", "RGBA", "I;16", "I", "F", "CMYK", "YCbCr", "LAB"))
_PREMULTIPLIED = {"La": "LA", "RGBa": "RGBA"}  # Pillow converts these modes only to these
_BYTE_ORDERS = ("I;16B", "I;16L", "I;16N")

# Pillow reads the file of an image when its pixels are first used, and two threads must not do that at once
_LOCKS = tuple(threading.Lock() for _ in range(64))


def lossless(image: Image.Image, max_pixels_in: int) -> bytes:
    """The upright picture of a PIL image as a file: a TIFF without compression, which is quick to write.

    The same picture always gives the same bytes. For an animation, it is the current frame. Pillow loads the
    pixels of the image, as at any use; nothing else in the image changes. Several threads may pass the same
    image.

    Raises:
        ImageError: bad_image, if its own file is broken or closed; too_large, if it has more pixels than
            `max_pixels_in` or does not fit into memory.
        ResourceError: the machine is out of descriptors or memory.
    """
    if 0 in image.size:
        raise ImageError(f"this PIL image has no pixels: its size is {image.width}x{image.height}")
    check_pixels(image.size, max_pixels_in)  # before its file is decoded
    try:
        with _LOCKS[id(image) // 16 % len(_LOCKS)]:
            _load(image)
            profile, orientation = _profile(image), orientation_of(image, [])
            picture = (image if image.tell() else on_white_screen(image)).copy()
        return _encoded(upright(_in_mode_of_a_file(picture), orientation), profile)
    except VlmbatchError:
        raise
    except MemoryError as error:
        raise OutOfMemory from error
    except Exception as error:  # `info` may hold values of any type
        raise ImageError(f"this PIL image cannot be used: {error}") from error


def _load(image: Image.Image) -> None:
    """Read the pixels from the file of the image, if Pillow has not read them yet."""
    try:
        image.load()
    except MemoryError:
        raise
    except Exception as error:  # decoders raise errors of any class, as in decode.py
        if trouble := ResourceError.behind(error):
            raise trouble from error
        if "closed" in str(error) or getattr(image, "fp", image) is None:
            raise ImageError(
                "this PIL image is closed; keep it open until you have its answer", retryable=True
            ) from error
        raise ImageError(
            f"the file of this PIL image cannot be decoded: {error}; get a whole copy"
        ) from error


def _profile(image: Image.Image) -> bytes | None:
    with suppress(ValueError):  # if the description is impossible, there is no profile
        return profile_of_pixels(image)
    return None


def _in_mode_of_a_file(picture: Image.Image) -> Image.Image:
    """The picture in a mode that a file can have, with the same colours."""
    if picture.mode in _PREMULTIPLIED:
        return picture.convert(_PREMULTIPLIED[picture.mode])
    if picture.mode in _BYTE_ORDERS:
        return picture.convert("I").convert("I;16")
    if picture.mode in _TIFF_MODES and ("transparency" not in picture.info or picture.mode.startswith("I")):
        return picture
    return picture.convert("RGBA" if picture.has_transparency_data else "RGB")


def _encoded(picture: Image.Image, profile: bytes | None) -> bytes:
    out, transparent = BytesIO(), picture.info.get("transparency")
    picture.info = {}  # save() would use a lossy compression that `info` names
    try:
        if transparent is not None and picture.mode == "I;16":  # TIFF has no transparent grey
            picture.save(out, "PNG", compress_level=1, transparency=transparent, icc_profile=profile)
        else:
            picture.save(out, "TIFF", icc_profile=profile)
    except OSError as error:  # no disk is used, so memory is full
        raise OutOfMemory from error
    return out.getvalue()
