"""The values of an image: its reference, its bytes, the prepared picture, and its facts in a record."""

from dataclasses import dataclass, replace
from typing import NamedTuple, TypeAlias

MOST_FRAMES = 10_000
"""More pages or frames of a file are not counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Walked:
    """How a walk has found an image: through no link below `root`, unless the image itself is a link."""

    root: str
    is_link: bool


@dataclass(slots=True, kw_only=True)
class ImageRef:
    """An image that a source has found. `id` is the path as typed, POSIX; `uri` is the path to open.

    Do not change it. It is not frozen, since making a frozen one takes three times as long: a run makes
    millions of them.
    """

    id: str
    uri: str
    prompt: str | None = None
    walked: Walked | None = None


class FileStamp(NamedTuple):
    """Identifies the version of a file: its size in bytes and its mtime in seconds.

    It is a tuple, since a resumed run may make a million of them, and a tuple is quick to make.
    """

    bytes: int
    mtime: float


ImageVersion: TypeAlias = FileStamp | str
"""The stamp of a file, or the SHA-256 of an image in memory. The result of an earlier run counts only if its
image version is the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceImage:
    """The whole content of one image file, read once, its SHA-256 in hexadecimal, and its stamp.

    An image that was never in a file has no stamp.
    """

    data: bytes
    sha256: str
    stamp: FileStamp | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedImage:
    """A picture as it is sent. Sides are in pixels.

    `data` is the base64 text (ASCII bytes) of the encoded picture, made in a worker thread; backends insert
    it into their request. `sent_bytes` is the encoded size before base64. `frames` is 1, or more for an
    animation whose first frame is sent. `is_reduced`: it is smaller than the options say, since a larger one
    did not fit at the endpoint. `is_original` says that the picture was not encoded again and only lost its
    metadata; then `file` is the path of the file, if it has one.
    """

    data: bytes
    media_type: str
    width: int
    height: int
    original_width: int
    original_height: int
    sent_bytes: int
    frames: int = 1
    warnings: tuple[str, ...] = ()
    is_reduced: bool = False
    is_original: bool = False
    file: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFacts:
    """The `image` object of a record; sides in pixels, sizes in bytes, None if unknown."""

    sha256: str | None = None
    bytes: int | None = None
    mtime: float | None = None
    width: int | None = None
    height: int | None = None
    sent_width: int | None = None
    sent_height: int | None = None
    sent_bytes: int | None = None
    frames: int | None = None

    @classmethod
    def of(
        cls, stamp: FileStamp | None, sha256: str | None = None, prepared: PreparedImage | None = None
    ) -> "ImageFacts":
        """The known facts of an image with this stamp that was perhaps also read and prepared."""
        size, mtime = (None, None) if stamp is None else (stamp.bytes, stamp.mtime)
        if prepared is None:
            return cls(sha256=sha256, bytes=size, mtime=mtime)
        return cls(  # dataclasses.replace() takes three times as long
            sha256=sha256,
            bytes=size,
            mtime=mtime,
            width=prepared.original_width,
            height=prepared.original_height,
            sent_width=prepared.width,
            sent_height=prepared.height,
            sent_bytes=prepared.sent_bytes,
            frames=prepared.frames,
        )

    def stamped(self, stamp: FileStamp | None) -> "ImageFacts":
        """These facts with another stamp."""
        if stamp is None:
            return replace(self, bytes=None, mtime=None)
        return replace(self, bytes=stamp.bytes, mtime=stamp.mtime)


def unread(frames: int | None) -> tuple[str, ...]:
    """The warning that a file has several pages or frames; only the first was read."""
    if frames is None or frames < 2:
        return ()
    number = f"{frames:,}" if frames < MOST_FRAMES else f"at least {MOST_FRAMES:,}"
    return (f"the file has {number} pages or frames; only the first was read",)
