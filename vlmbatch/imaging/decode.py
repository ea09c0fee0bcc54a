"""Opens an image and reads its header; any exception of a decoder becomes an ImageError."""

import ctypes
import functools
import logging
import warnings as python_warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from typing import BinaryIO

# each import registers a decoder with Pillow; this avoids a race of threads in Image.init() and the import of
# its forty other decoders
from PIL import (
    AvifImagePlugin,  # noqa: F401  # registers itself
    BmpImagePlugin,  # noqa: F401  # registers itself
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
from vlmbatch.imaging.tiff.opening import open_tiff

_MOST_TEXT = 16 * 1024**2  # bytes, of one compressed text or profile in a PNG

_LONGEST_DETAIL = 200  # characters of a decoder's message that are shown


@contextmanager
def decoding(file: BinaryIO | bytes) -> Iterator[ImageFile.ImageFile]:
    """Open an image for the ``with`` block; any failure of its bytes in the block becomes an ImageError.

    Raises:
        ImageError: the file is empty, not an image, or not decodable.
        ResourceError: the machine is out of descriptors or memory.
    """
    source = BytesIO(file) if isinstance(file, bytes) else file
    source.seek(0)
    head = source.read(HEAD_BYTES)
    name = sniff(head)
    if name is None:
        raise ImageError(
            f"not an image: it begins like {describe(head)}"
            if head
            else "the file is empty; get a whole copy"
        )
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
    """Whether a codec of Pillow ran out of memory; zlib then reports a wrong configuration."""
    return "out of memory" in words or (name == "PNG" and "codec configuration error" in words)


class OutOfMemory(ImageError):
    """The image does not fit into the memory of this machine."""

    def __init__(self) -> None:
        super().__init__(
            "not enough memory to decode it; a smaller --max-pixels-in refuses such images before decoding",
            kind="too_large",
            retryable=True,
        )


def check_pixels(size: tuple[int, int], max_pixels_in: int | None) -> None:
    """Refuse an image with too many pixels before any is decoded.

    Raises:
        ImageError: too_large, or bad_image if a side is not positive.
    """
    width, height = size
    if width < 1 or height < 1:
        raise ImageError(f"its header declares a size of {width}x{height} pixels; get a whole copy")
    if max_pixels_in is not None and width * height > max_pixels_in:
        raise ImageError(
            f"{width}x{height} = {width * height / 1e6:.6g} megapixels,"
            f" more than --max-pixels-in {max_pixels_in / 1e6:g} MP; raise it to accept the image",
            kind="too_large",
        )


def _open(source: BinaryIO, name: str) -> ImageFile.ImageFile:
    _settle_pillow()
    if name == "HEIF" and not has_heif():
        raise ImageError(
            'HEIC needs a plug-in; install it with: pip install "vlmbatch[heic]"', retryable=True
        )
    # only the decoder that matches the first bytes: Pillow has forty, one of which starts Ghostscript
    return open_tiff(source) if name == "TIFF" else Image.open(source, formats=(name,))


@functools.cache
def _settle_pillow() -> None:
    """Change Pillow's settings for the whole process, only here; racing threads just do it twice."""
    # --max-pixels-in replaces Pillow's own limit, which only warns up to twice its size; a warning cannot be
    # caught in a thread
    Image.MAX_IMAGE_PIXELS = None
    # a printer's colour profile, or the workflow of a generated picture, has more than a megabyte
    PngImagePlugin.MAX_TEXT_CHUNK = _MOST_TEXT
    # "Possibly corrupt EXIF data" does not name its image and disturbs the progress bar; real errors raise
    python_warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
    # without a handler, logging prints Pillow's errors to the terminal
    logging.getLogger("PIL").addHandler(logging.NullHandler())
    # libtiff writes errors to descriptor 2, which disturbs the bar and the log, and names no image; they are
    # silenced like Pillow's warnings
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
    if isinstance(error, UnidentifiedImageError):  # its text has a memory address and no cause
        return f"the {shown} cannot be opened: it is truncated, broken, or not supported by Pillow"
    lines = str(error).splitlines() or ["its data is broken"]
    detail = lines[0][:_LONGEST_DETAIL]
    is_cut = any(word in detail.lower() for word in ("truncated", "unexpected end"))
    return (
        f"the {shown} is truncated: {detail}; get a whole copy"
        if is_cut
        else f"the {shown} cannot be decoded: {detail}"
    )
