"""Images that a caller hands over one by one: paths, bytes and PIL images."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from vlmbatch.errors import ImageError
from vlmbatch.images import FileStamp, ImageRef, SourceImage
from vlmbatch.sources.files import read_file, stamp_file

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

GivenImage: TypeAlias = "str | os.PathLike[str] | bytes | PillowImage"
"""A path, the bytes of an image file, or a PIL image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InMemoryImage(ImageRef):
    """An image without a file: its bytes, or a PIL image."""

    content: "bytes | PillowImage"


class GivenImages:
    """A source of images that a caller hands over; there is nothing to walk."""

    ignored = 0
    unreadable = 0

    def __init__(self, max_bytes: int) -> None:
        """`max_bytes` is the largest size of an image file."""
        self.ignored_kinds = Counter[str]()
        self.skipped_entries = Counter[str]()
        self.empty_paths: list[str] = []
        self._max_bytes = max_bytes

    def __iter__(self) -> Iterator[ImageRef]:
        """No references: each comes from `ref`."""
        return iter(())

    def count(self) -> None:
        """Unknown."""

    def holds_nothing(self) -> bool:
        """False: images come from `ref`."""
        return False

    @staticmethod
    def ref(image: GivenImage) -> ImageRef:
        """A reference to this image; the id of an image without a file is `(in memory)`."""
        if isinstance(image, str | os.PathLike):
            path = os.fspath(image)
            return ImageRef(id=path, uri=path)
        return InMemoryImage(id="(in memory)", uri="", content=image)

    def read(self, ref: ImageRef) -> SourceImage:
        """The whole image; raises as Source.read does."""
        if not isinstance(ref, InMemoryImage):
            return read_file(ref, max_bytes=self._max_bytes)
        data = ref.content if isinstance(ref.content, bytes) else _encoded(ref.content)
        if len(data) > self._max_bytes:
            raise ImageError(
                f"the image has {len(data):,} bytes, more than {self._max_bytes:,}; raise --max-bytes "
                "to accept it",
                kind="too_large",
            )
        return SourceImage(data=data, sha256=hashlib.sha256(data).hexdigest(), stamp=None)

    def stamp(self, ref: ImageRef) -> FileStamp | None:
        """Size and mtime of a file; None for an image in memory."""
        return None if isinstance(ref, InMemoryImage) else stamp_file(ref)


def _encoded(image: "PillowImage") -> bytes:
    from vlmbatch.imaging.encode import lossless  # loads Pillow

    return lossless(image)
