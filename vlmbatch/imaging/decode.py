"""Opens an image and reads its header; whatever a decoder raises over hostile bytes becomes an ImageError."""

import ctypes
import functools
import logging
import warnings as python_warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from typing import BinaryIO

# imported for what they register with Pillow: naming them here spares a race of threads over Image.init()
# and the import of its forty other decoders
from PIL import (
    AvifImagePlugin,  # noqa: F401  # registers itself
    BmpImagePlugin,  # noqa: F401  # registers itself
    ExifTags,
    GifImagePlugin,  # noqa: F401  # registers itself
    Image,
    ImageFile,
    JpegImagePlugin,  # noqa: F401  # registers itself
    MpoImagePlugin,  # noqa: F401  # registers itself
    PngImagePlugin,
    TiffImagePlugin,  # noqa: F401  # registers itself
    UnidentifiedImageError,
    WebPImagePlugin,  # noqa: F401  # registers itself
    _imaging,
)

from vlmbatch.errors import ImageError, ResourceError
from vlmbatch.imaging.formats import HEAD_BYTES, describe, sniff

UPRIGHT = 1
"""The EXIF orientation of what needs no turning."""

_MOST_TEXT = 16 * 1024**2  # bytes, of one compressed text or profile in a PNG

_LONGEST_DETAIL = 200  # characters of a decoder's own words in a message


@contextmanager
def decoding(file: BinaryIO | bytes) -> Iterator[ImageFile.ImageFile]:
    """Open an image for the block, in which any failure over its bytes becomes an ImageError.

    Raises:
        ImageError: empty, not an image, or not decodable.
        ResourceError: the machine is out of descriptors or memory.
    """
    source = BytesIO(file) if isinstance(file, bytes) else file
    source.seek(0)
    head = source.read(HEAD_BYTES)
    name = sniff(head)
    if name is None:
        raise ImageError(f"not an image: it begins like {describe(head)}" if head else "the file is empty")
    try:
        yield _open(source, name)
    except ImageError:
        raise
    except MemoryError as error:
        raise OutOfMemory from error
    # fuzzed decoders raise OSError, ValueError, TypeError, SyntaxError, RuntimeError, struct.error and more
    except Exception as error:  # a hostile image must cost its own record, not the run
        if trouble := ResourceError.behind(error):
            raise trouble from error
        if _ran_out_of_memory(name, str(error)):
            raise OutOfMemory from error
        raise ImageError(_explain(name, error)) from error


def _ran_out_of_memory(name: str, words: str) -> bool:
    """How Pillow's codecs say it; zlib, short of memory for its own state, ends as a wrong configuration."""
    return "out of memory" in words or (name == "PNG" and "codec configuration error" in words)


class OutOfMemory(ImageError):
    """The failure of an image that this machine's memory cannot hold."""

    def __init__(self) -> None:
        super().__init__(
            "there is not enough memory to decode it; --max-pixels-in refuses such pictures at once",
            kind="too_large",
            retryable=True,
        )


def check_pixels(size: tuple[int, int], max_pixels_in: int | None) -> None:
    """Refuse, before a pixel is decoded, what would decode to too many of them."""
    width, height = size
    if width < 1 or height < 1:
        raise ImageError(f"it says that it is {width}x{height} pixels large")
    if max_pixels_in is not None and width * height > max_pixels_in:
        raise ImageError(
            f"{width}x{height} = {width * height / 1e6:.6g} megapixels,"
            f" more than --max-pixels-in {max_pixels_in / 1e6:g} MP",
            kind="too_large",
        )


def orientation_of(image: Image.Image, warnings: list[str]) -> int:
    """The EXIF orientation, 1 to 8; 1 where there is none or it makes no sense."""
    try:
        # PNG's own getexif() would decode the picture in search of EXIF data behind it
        value = Image.Image.getexif(image).get(ExifTags.Base.Orientation, UPRIGHT)
    except Exception:  # noqa: BLE001  # broken EXIF data raises anything, and the pixels are well
        warnings.append("its EXIF data is broken: taken as upright")
        return UPRIGHT
    return value if isinstance(value, int) and 1 <= value <= 8 else UPRIGHT


def announced_orientation(image: Image.Image) -> int:
    """The EXIF orientation of an image of which only the header was read, as far as that tells it."""
    if image.format == "TIFF":  # see upright_size()
        return UPRIGHT
    orientation = orientation_of(image, [])
    # Pillow would remember it, also that a PNG has none, which may come behind its pixels
    image._exif = None
    return orientation


def upright_size(size: tuple[int, int], name: str | None, orientation: int) -> tuple[int, int]:
    """The declared width and height of an image as they are once it is upright."""
    # Pillow swaps the sides of a TIFF by itself when it opens it, and turns the pixels when it loads them
    return size if name == "TIFF" or orientation < 5 else (size[1], size[0])


def _open(source: BinaryIO, name: str) -> ImageFile.ImageFile:
    _settle_pillow()
    if name == "HEIF" and not has_heif():
        raise ImageError(
            'HEIC needs a plug-in; install it with: pip install "vlmbatch[heic]"', retryable=True
        )
    # only the decoder that the first bytes call for: Pillow has forty, one of which starts Ghostscript
    return Image.open(source, formats=(name,))


@functools.cache
def _settle_pillow() -> None:
    """The one place that changes Pillow for the whole process; racing threads would do the same twice."""
    # our cap rules: Pillow's own only warns up to twice its size, and a warning cannot be caught in a thread
    Image.MAX_IMAGE_PIXELS = None
    # a printer's colour profile, or the workflow that a picture was generated with, has more than a megabyte
    PngImagePlugin.MAX_TEXT_CHUNK = _MOST_TEXT
    # "Possibly corrupt EXIF data" amid a progress bar tells nobody which image; what matters raises
    python_warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
    # and without a handler, logging prints Pillow's errors by itself
    logging.getLogger("PIL").addHandler(logging.NullHandler())
    # libtiff writes errors to descriptor 2, amid a bar or a log, and does not say of which image; as Pillow
    # does with its warnings, they are silenced
    with suppress(OSError, AttributeError):  # no libtiff in this build of Pillow
        ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler(None)


@functools.cache
def has_heif() -> bool:
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


def _explain(name: str, error: Exception) -> str:
    shown = "HEIC" if name == "HEIF" else name
    if isinstance(error, UnidentifiedImageError):  # its text holds an address of memory, and no cause
        return (
            f"the {shown} cannot be opened: it is cut short, broken, or of a kind that Pillow does not know"
        )
    lines = str(error).splitlines() or [type(error).__name__]
    detail = lines[0][:_LONGEST_DETAIL]
    is_cut = any(word in detail.lower() for word in ("truncated", "unexpected end"))
    return f"the {shown} is truncated: {detail}" if is_cut else f"the {shown} cannot be decoded: {detail}"
