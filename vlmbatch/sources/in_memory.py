"""Reads images that have no file: the bytes of an image file, and PIL images."""

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vlmbatch.errors import ImageError
from vlmbatch.images import ImageRef, SourceImage
from vlmbatch.imaging.formats import HEAD_BYTES, describe, looks_like_image

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage


@dataclass(slots=True, kw_only=True)
class InMemoryImage(ImageRef):
    """An image without a file: its bytes, or a PIL image of at most `max_pixels_in` pixels."""

    content: "bytes | PillowImage" = field(repr=False)
    max_pixels_in: int


def read_in_memory(image: InMemoryImage, *, max_bytes: int) -> SourceImage:
    """The image as the content of a file, without a stamp. `max_bytes` limits bytes, not PIL images.

    Raises:
        ImageError: the bytes are too many or are text, or the PIL image cannot be used (see lossless()).
        ResourceError: the machine is out of descriptors or memory.
    """
    data = _checked(image.content, max_bytes) if isinstance(image.content, bytes) else _encoded(image)
    return SourceImage(data=data, sha256=hashlib.sha256(data).hexdigest(), stamp=None)


def content_version(image: InMemoryImage, *, max_bytes: int) -> str | None:
    """The SHA-256 that the record of the image has; None if the image cannot be read."""
    try:
        return read_in_memory(image, max_bytes=max_bytes).sha256
    except ImageError:
        return None


def _checked(data: bytes, max_bytes: int) -> bytes:
    """These bytes, if they may be an image file; raises ImageError."""
    if len(data) > max_bytes:
        raise ImageError(
            f"the image has {len(data):,} bytes, more than {max_bytes:,}; raise --max-bytes to accept it",
            kind="too_large",
        )
    head = data[:HEAD_BYTES]
    if not looks_like_image(head) and describe(head) == "text":
        raise ImageError(
            f"these bytes are text, not an image file: {head!r}; give a path as str or Path, not as bytes,"
            " and decode base64 first"
        )
    return data


def _encoded(image: InMemoryImage) -> bytes:
    from vlmbatch.imaging.lossless import lossless  # loads Pillow

    assert not isinstance(image.content, bytes), "called for a PIL image"
    return lossless(image.content, image.max_pixels_in)
