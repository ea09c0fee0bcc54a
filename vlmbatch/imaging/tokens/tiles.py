"""Models that put a picture on one tile or on a grid of tiles, most of them with a small overview added."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

from vlmbatch.imaging.tokens.family import Size, within


@dataclass(frozen=True, slots=True, kw_only=True)
class OneSquare:
    """Every picture becomes one square of `side` pixels that costs `count` tokens.

    Gemma 3 and 3n, which stretch it, and LLaVA 1.5 with `cuts`: there transformers resizes the shorter side
    to `side` and crops to the middle. llama.cpp adds bars instead, for all of them.
    Source: image_processing_gemma3.py and image_processing_llava.py in transformers.
    """

    side: int
    count: int
    cuts: bool = False

    def tokens(self, size: Size) -> int:
        """The same for every picture."""
        return self.count

    def sees_all(self, size: Size) -> bool:
        """True unless it is larger than the square."""
        return (min(size) if self.cuts else max(size)) <= self.side

    def sizes(self, size: Size) -> Iterator[Size]:
        """The picture fitted into the square, or around it with `cuts`."""
        reach = self.side
        if self.cuts:
            reach = math.ceil(reach * max(size) / min(size))
        yield within(size, (self.side, reach) if size[0] < size[1] else (reach, self.side))


@dataclass(frozen=True, slots=True, kw_only=True)
class BestResolution:
    """The picture is put on the canvas that keeps most of it; tokens of the bars are removed.

    LLaVA-NeXT (1.6): one square of `tile` pixels for the whole picture, and one for each tile.
    Source: select_best_resolution and LlavaNextProcessor in transformers.
    """

    tile: int
    patch: int
    canvases: Sequence[tuple[int, int]]
    """Columns and rows, in the order of the model's image_grid_pinpoints."""

    def tokens(self, size: Size) -> int:
        """The small picture, the patches of the canvas that show a part of it, and one mark for each row."""
        side = self.tile // self.patch
        columns, rows = (count * side for count in self._canvas(size))
        width, height = size
        if width / height > columns / rows:
            rows -= (rows - int(round(height * (columns / width), 7))) // 2 * 2
        else:
            columns -= (columns - int(round(width * (rows / height), 7))) // 2 * 2
        return side**2 + columns * rows + rows

    def sees_all(self, size: Size) -> bool:
        """True unless it is larger than its canvas."""
        return _is_within(size, self._canvas(size), self.tile)

    def sizes(self, size: Size) -> Iterator[Size]:
        """The picture fitted into each canvas."""
        return _in_each(size, self.canvases, self.tile)

    def _canvas(self, size: Size) -> tuple[int, int]:
        def kept(canvas: tuple[int, int]) -> tuple[int, int]:
            scale = min(canvas[0] * self.tile / size[0], canvas[1] * self.tile / size[1])
            pixels = min(int(size[0] * scale) * int(size[1] * scale), size[0] * size[1])
            return pixels, pixels - canvas[0] * canvas[1] * self.tile**2

        return max(self.canvases, key=kept)


@dataclass(frozen=True, slots=True, kw_only=True)
class SmallestCanvas:
    """The picture lies in a corner of the canvas that it fills best; the rest is padding.

    The canvas has at most `most` tiles. It is the one that needs the least enlargement of the picture, or
    else the least shrinking. Llama 3.2 Vision, and Llama 4 with `overview`: a small overview and marks.
    Source: get_optimal_tiled_canvas in image_processing_mllama.py and get_best_fit in
    image_processing_llama4.py in transformers.
    """

    tile: int
    most: int
    count: int
    overview: bool = False
    spare: int = 0
    """The sent size stays this many pixels below a canvas, since Ollama (mllama/process_image.go) uses a
    larger one for a picture that fills a single tile to the last pixel."""

    def tokens(self, size: Size) -> int:
        """Tiles; with an overview also its tile, a mark after each tile, and three around."""
        columns, rows = self._canvas(size)
        tiles = columns * rows
        if not self.overview:
            return tiles * self.count
        return 3 + self.count + (tiles * (self.count + 1) if tiles > 1 else 0)

    def sees_all(self, size: Size) -> bool:
        """True unless it is larger than its canvas."""
        return _is_within(size, self._canvas(size), self.tile)

    def sizes(self, size: Size) -> Iterator[Size]:
        """The picture fitted into each canvas."""
        return _in_each(size, _grids(self.most), self.tile, self.spare)

    def _canvas(self, size: Size) -> tuple[int, int]:
        def fit(grid: tuple[int, int]) -> tuple[bool, float, int]:
            scale = min(grid[0] * self.tile / size[0], grid[1] * self.tile / size[1])
            return scale < 1, scale if scale >= 1 else -scale, grid[0] * grid[1]

        return min(_grids(self.most), key=fit)


@dataclass(frozen=True, slots=True, kw_only=True)
class NearestAspect:
    """The picture is stretched over the grid of tiles, `most` at most, whose aspect is nearest its own.

    Of the grids with the same aspect it uses the largest whose area is less than twice that of the picture.
    So every size of a 4:3 picture costs the same, and only near 1:1, 1:2 and 1:3 a smaller one costs less.
    InternVL. Source: get_optimal_tiled_canvas in transformers, image_processing_got_ocr2.py. llama.cpp
    chooses by area and not by aspect, and there smaller pictures cost less.
    """

    tile: int
    most: int
    count: int

    def tokens(self, size: Size) -> int:
        """Tiles, the small picture if there are several tiles, and two marks."""
        columns, rows = self._grid(size)
        tiles = columns * rows
        return 2 + self.count * (tiles + 1 if tiles > 1 else 1)

    def sees_all(self, size: Size) -> bool:
        """True unless it is larger than its grid."""
        return _is_within(size, self._grid(size), self.tile)

    def sizes(self, size: Size) -> Iterator[Size]:
        """The picture fitted into each grid."""
        return _in_each(size, _grids(self.most), self.tile)

    def _grid(self, size: Size) -> tuple[int, int]:
        best, nearest = (1, 1), math.inf
        for grid in _grids(self.most):
            distance = abs(size[0] / size[1] - grid[0] / grid[1])
            is_as_near = distance == nearest and 2 * size[0] * size[1] > self.tile**2 * grid[0] * grid[1]
            if distance < nearest or is_as_near:
                best, nearest = grid, distance
        return best


@cache
def _grids(most: int) -> tuple[tuple[int, int], ...]:
    """All grids of at most this many tiles, ordered by area and then by columns."""
    every = [(columns, rows) for columns in range(1, most + 1) for rows in range(1, most // columns + 1)]
    return tuple(sorted(every, key=lambda grid: grid[0] * grid[1]))


def _in_each(size: Size, grids: Sequence[tuple[int, int]], tile: int, spare: int = 0) -> Iterator[Size]:
    for columns, rows in grids:
        yield within(size, (columns * tile - spare, rows * tile - spare))


def _is_within(size: Size, grid: tuple[int, int], tile: int) -> bool:
    return size[0] <= grid[0] * tile and size[1] <= grid[1] * tile
