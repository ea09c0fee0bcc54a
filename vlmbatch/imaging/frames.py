"""Counts the frames of an animation and the pages of a document, of which only the first is read."""

from contextlib import suppress

from PIL import ImageFile, MpoImagePlugin

from vlmbatch.errors import ImageError
from vlmbatch.images import MOST_FRAMES
from vlmbatch.imaging.decode import decoding
from vlmbatch.imaging.gif.structure import count_frames
from vlmbatch.imaging.png.animation import has_still
from vlmbatch.imaging.survey import Survey

_MOST_OF_MPO = 100
_ENTRIES = 0xB002  # of the index of an MPO (CIPA DC-007)
_OF_MANY = "Multi-Frame Image"  # a panorama, or the two of a stereo camera
_UNDEFINED = "Undefined"
_MAPS = (b"hdrgm:", b"HDRGainMap", b"apple:photo:2020:aux:", b"iso:ts:21496", b'Semantic="GainMap"')
"""Marks of a map of brightness or depth that phones put after a photo: Google's, Apple's and that of ISO."""


def frames_in(image: ImageFile.ImageFile, file: Survey) -> int:
    """The number of frames, pages or pictures of an opened file, from 1 to MOST_FRAMES.

    Previews and gain maps of a photo do not count.
    """
    if file.tiff is not None:
        return min(file.tiff.pages, MOST_FRAMES)
    if image.format == "GIF":
        return count_frames(file.data, MOST_FRAMES)
    if isinstance(image, MpoImagePlugin.MpoImageFile):
        return _pictures_of(image, file.data)
    frames = int(getattr(image, "n_frames", 1)) - has_still(image)
    return min(max(frames, 1), MOST_FRAMES)


def _pictures_of(image: MpoImagePlugin.MpoImageFile, data: bytes) -> int:
    """The number of pictures of an MPO: those of a series, and undefined ones like the first one.

    Undefined are the pictures of programs that give no kinds, and the maps of phones: smaller, or in grey.
    """
    entries = (image.mpinfo or {}).get(_ENTRIES, ())
    kinds = [str(entry["Attribute"]["MPType"]) for entry in entries[1:_MOST_OF_MPO]]
    has_map = any(mark in data for mark in _MAPS)
    pictures = 1
    for number, kind in enumerate(kinds, 1):
        is_same = kind == _UNDEFINED and not has_map and _look_of(data, number) == _look(image)
        pictures += kind.startswith(_OF_MANY) or is_same
    return pictures


def _look_of(data: bytes, number: int) -> tuple[tuple[int, int], str] | None:
    """The size and mode of this picture of an MPO; None if there is none at its place."""
    with suppress(ImageError), decoding(data) as image:
        image.seek(number)
        return _look(image)
    return None


def _look(image: ImageFile.ImageFile) -> tuple[tuple[int, int], str]:
    return image.size, image.mode
