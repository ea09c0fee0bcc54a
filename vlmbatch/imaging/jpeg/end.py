"""Checks whether the coded data of a JPEG with one scan has all its rows.

At an end mark libjpeg fills missing rows with grey, without an error. So it gets the data without that mark;
if it asks for more, two rows are checked: it may not have written them.
"""

import weakref

from PIL import ImageFile

from vlmbatch.errors import ImageError
from vlmbatch.imaging.jpeg.structure import END_MARK, JpegStructure

_ONES = b"\xff\x00" * 16
"""Coded data of bits that are 1: the decoder looks ahead, and no code consists of ones only (T.81 C.2)."""
_PAINTED = 8  # pixels at the left of a row, in colours that no picture has there
_UNIT_ROWS = 16  # rows of the usual unit (MCU)


def check_end(image: ImageFile.ImageFile, height: int, structure: JpegStructure, warnings: list[str]) -> None:
    """Make load() of an opened JPEG with one scan fail if rows are missing when its data ends.

    `height` is that of the file. If no more than about one row of units is missing, there is a warning.
    """
    end = structure.end
    if not end:
        return
    # the image holds the hook below; if the hook held it, too, it would wait for the garbage collector
    opened: ImageFile.ImageFile = weakref.proxy(image)
    rows = _Rows(opened, -(-2 * _UNIT_ROWS * image.height // height))
    marks = [END_MARK]

    def read(size: int) -> bytes:
        rows.paint()
        assert opened.fp is not None  # during load()
        left = end - opened.fp.tell()
        if left > 0:
            return opened.fp.read(min(size, left)) + (_ONES if left <= size else b"")
        if not marks:
            return b""
        rows.check(warnings)
        return marks.pop()

    image.load_read = read  # type: ignore[attr-defined]  # a hook of Pillow's decoders


class _Rows:
    """Two rows of a picture, painted before it is decoded: the last one, and one that is `above` it."""

    def __init__(self, image: ImageFile.ImageFile, above: int) -> None:
        self._image = image
        self._last = image.height - 1
        self._early = max(self._last - above, 0)
        self._is_painted = False

    def paint(self) -> None:
        if not self._is_painted:  # nothing has been written yet
            self._is_painted = True
            for x, y, colour in self._places(self._early) + self._places(self._last):
                self._image.im.putpixel((x, y), colour)

    def check(self, warnings: list[str]) -> None:
        """Refuse the picture, or warn, if rows were not written.

        Raises:
            ImageError: bad_image.
        """
        if not self._is_written(self._early):
            raise ImageError("the JPEG is damaged: its picture data ends too early; get a whole copy")
        if not self._is_written(self._last):
            warnings.append("its last rows are damaged: the picture data ends too early; get a whole copy")

    def _is_written(self, y: int) -> bool:
        places = self._places(y)
        is_narrow = len(places) < _PAINTED
        return is_narrow or any(self._image.im.getpixel((x, y)) != colour for x, y, colour in places)

    def _places(self, y: int) -> list[tuple[int, int, int | tuple[int, ...]]]:
        """The pixels to paint, each with its colour."""
        bands = len(self._image.getbands())
        places: list[tuple[int, int, int | tuple[int, ...]]] = []
        for x in range(min(_PAINTED, self._image.width)):
            colour = tuple((x * 89 + band * 151 + 7) % 256 for band in range(bands))
            places.append((x, y, colour[0] if bands == 1 else colour))
        return places
