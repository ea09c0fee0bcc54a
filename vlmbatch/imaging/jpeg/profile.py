"""Joins the ICC profile of a JPEG, which may be spread over several segments."""

from PIL import ImageFile

_MARK = b"ICC_PROFILE\0"  # ICC.1:2022 annex B.4; then the number of the piece, from 1, and their count
_HEAD_BYTES = 14


def jpeg_profile(image: ImageFile.ImageFile) -> bytes | None:
    """The profile of an opened JPEG, in any order of its pieces; None if it has none.

    Pillow does not join pieces behind the frame header, or of a profile that is there twice.

    Raises:
        ValueError: a piece is missing, or two pieces contradict each other.
    """
    segments: list[tuple[str, bytes]] = getattr(image, "applist", [])
    pieces = {segment for name, segment in segments if name == "APP2" and segment.startswith(_MARK)}
    if not pieces:
        return None
    numbers = sorted((piece[12], piece[13]) for piece in pieces if len(piece) >= _HEAD_BYTES)
    count = len(pieces)
    if numbers != [(number, count) for number in range(1, count + 1)]:
        raise ValueError("its colour profile is incomplete: a piece is missing")
    return b"".join(piece[_HEAD_BYTES:] for piece in sorted(pieces))
