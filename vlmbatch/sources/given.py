"""Images that a caller hands over in Python: paths, bytes and PIL images."""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import TYPE_CHECKING, TypeAlias, TypeGuard

from vlmbatch.config.groups import InputOptions
from vlmbatch.images import ImageRef
from vlmbatch.sources.files import FileSource
from vlmbatch.sources.in_memory import InMemoryImage

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

GivenImage: TypeAlias = "str | os.PathLike[str] | bytes | bytearray | memoryview | PillowImage"
"""A path, the bytes of an image file, or a PIL image."""

IN_MEMORY = "(in memory)"
"""The id of an image without a file."""


class GivenImages(FileSource):
    """The source of a session: callers give the images, so there are no folders to search."""

    def __init__(self, max_bytes: int) -> None:
        """`max_bytes` is the largest size of an image file."""
        super().__init__(InputOptions(max_bytes=max_bytes))

    def __iter__(self) -> Iterator[ImageRef]:
        """No references: each call makes its own with `references`."""
        return iter(())

    def count(self) -> None:
        """Unknown."""


def numbered_references(images: Sequence[GivenImage], max_pixels_in: int) -> list[ImageRef]:
    """A reference to each image. The id of an image in memory has its position, from 1: ``(in memory 3)``.

    Raises TypeError as reference() does.
    """
    return [reference(image, max_pixels_in, number) for number, image in enumerate(images, 1)]


def references(
    images: "GivenImage | Sequence[GivenImage]", max_pixels_in: int, number: int | None = None
) -> list[ImageRef]:
    """References to the image, or to the several images, of one question; see reference().

    Raises:
        TypeError: one of them is not an image.
        ValueError: there is no image.
    """
    several = images if _are_several(images) else (images,)
    if not several:
        raise ValueError("a question needs at least one image")
    return [reference(image, max_pixels_in, number) for image in several]  # type: ignore[arg-type]


def reference(image: GivenImage, max_pixels_in: int, number: int | None = None) -> ImageRef:
    """A reference to this image. In memory, its id is ``(in memory)``, or with a number ``(in memory 3)``.

    `max_pixels_in` is the largest number of pixels of a PIL image.

    Raises:
        TypeError: it is not an image; the message says what to write instead.
    """
    if isinstance(image, str | os.PathLike):
        path = os.fsdecode(image)
        return ImageRef(id=path, uri=path)
    if isinstance(image, bytes | bytearray | memoryview):
        content: bytes | PillowImage = bytes(image)
    elif _is_pillow(image):
        content = image
    else:
        name = "None" if image is None else type(image).__name__
        raise TypeError(
            f"an image is a path, the bytes of an image file, or a PIL image, not {name}{_instead(image)}"
        )
    image_id = IN_MEMORY if number is None else f"(in memory {number})"
    return InMemoryImage(id=image_id, uri="", content=content, max_pixels_in=max_pixels_in)


def _are_several(images: object) -> TypeGuard[Sequence[GivenImage]]:
    return isinstance(images, Sequence) and not isinstance(images, str | bytes | bytearray | memoryview)


def _is_pillow(image: object) -> "TypeGuard[PillowImage]":
    module = sys.modules.get("PIL.Image")  # without it, nothing is a PIL image
    return module is not None and isinstance(image, module.Image)


def _instead(value: object) -> str:
    """The end of an error message, with the code to write instead of this value."""
    if hasattr(value, "__array_interface__"):
        return "; write PIL.Image.fromarray(array)"
    if hasattr(value, "read"):
        return "; give its bytes: file.read(), from a file that is open in mode rb"
    if isinstance(value, Mapping):
        return "; give the image in it, such as row['image']"
    if isinstance(value, Sequence | Set | Iterator):
        return "; for several images write run_batch(*images), or give a session a list for one question"
    return ""
