"""Models that cut a picture into pieces at its own size: Idefics3, SmolVLM and MiniCPM-V."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from vlmbatch.imaging.tokens.family import NEARLY, Size, of_area, within


@dataclass(frozen=True, slots=True, kw_only=True)
class Enlarged:
    """Every picture is resized to a longest side of `longest`, also enlarged, and cut into tiles.

    A smaller picture costs the same and shows less; only the aspect changes the cost. Idefics3, SmolVLM.
    Source: get_number_of_image_patches and Idefics3Processor in transformers.
    """

    tile: int
    longest: int
    count: int

    def tokens(self, size: Size) -> int:
        """Tiles with two marks each, one mark for each row, and the small picture with three."""
        columns, rows = self._grid(size)
        tiles = columns * rows
        return self.count + 3 + (rows * (columns * (self.count + 2) + 1) if tiles > 1 else 0)

    def sees_all(self, size: Size) -> bool:
        """True unless its longest side is above `longest`."""
        return max(size) <= self.longest

    def sizes(self, size: Size) -> Iterator[Size]:
        """The picture at its longest side, and slightly squeezed if that saves a row or column."""
        width, height = within(size, (self.longest, self.longest))
        yield width, height
        long, short = max(width, height), min(width, height)
        whole = math.floor(short * self.longest / (long * self.tile)) * self.tile * long // self.longest
        if whole >= NEARLY * short:
            yield (width, whole) if width >= height else (whole, height)

    def _grid(self, size: Size) -> tuple[int, int]:
        aspect = size[0] / size[1]
        width = self.longest if aspect >= 1 else max(1, int(self.longest * aspect))
        height = max(1, int(self.longest / aspect)) if aspect >= 1 else self.longest
        return math.ceil(width / self.tile), math.ceil(height / self.tile)


@dataclass(frozen=True, slots=True, kw_only=True)
class Slices:
    """The picture once, small, and as many slices of `tile` x `tile` pixels as its area holds, up to `most`.

    MiniCPM-V and -o 2.6 to 4.5, whose slices cost `count` each; and 4.6, where a slice is resized to whole
    patches of `patch` pixels, which cost a token each.
    Source: get_sliced_grid and get_slice_image_placeholder in the model's own image_processing_minicpmv.py,
    and image_processing_minicpmv4_6.py in transformers. llama.cpp slices as soon as one side is above `tile`.
    """

    tile: int
    most: int
    count: int | None = None
    patch: int = 0

    def tokens(self, size: Size) -> int:
        """The small picture and each slice with two marks, a mark between rows, three for an image number."""
        columns, rows = self._grid(size)
        tiles = columns * rows
        if tiles == 1:
            return 5 + self._cost(*size)
        slices = self._cost(_nearest(size[0], columns) / columns, _nearest(size[1], rows) / rows)
        return 5 + self._cost(*size) + tiles * (slices + 2) + rows - 1

    def sees_all(self, size: Size) -> bool:
        """True unless it has more pixels than all slices."""
        return size[0] * size[1] <= self.most * self.tile**2

    def sizes(self, size: Size) -> Iterator[Size]:
        """The picture with the area of each number of slices, from the largest down."""
        for count in range(self.most, 0, -1):
            yield of_area(size, count * self.tile**2)

    def _cost(self, width: float, height: float) -> int:
        """The cost of the picture or a part of it, resized to the area of a slice."""
        if self.count is not None:
            return self.count
        high = int(self.tile / math.sqrt(width / height))
        wide = int(high * (width / height))
        return _nearest(wide, self.patch) * _nearest(high, self.patch) // self.patch**2

    def _grid(self, size: Size) -> tuple[int, int]:
        wanted = min(math.ceil(size[0] * size[1] / self.tile**2), self.most)
        if wanted <= 1:
            return 1, 1
        aspect = math.log(size[0] / size[1])
        counts = [n for n in (wanted - 1, wanted, wanted + 1) if 1 < n <= self.most]
        grids = [(n // rows, rows) for n in counts for rows in range(n, 0, -1) if n % rows == 0]
        return min(grids, key=lambda grid: abs(aspect - math.log(grid[0] / grid[1])))


def _nearest(length: float, multiple: int) -> int:
    return max(round(length / multiple) * multiple, multiple)
