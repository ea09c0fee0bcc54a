"""Models that use a picture at nearly its own size, in patches: Qwen-VL, Pixtral and Mistral, Gemma 4."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from vlmbatch.imaging.tokens.family import Size, of_area


@dataclass(frozen=True, slots=True, kw_only=True)
class NearestPatches:
    """Each side is rounded to the nearest multiple of `patch`; the area stays between two limits in pixels.

    Qwen2-VL and its successors; a token covers `patch` pixels a side, which is two patches of the encoder.
    Source: smart_resize in transformers, image_processing_qwen2_vl.py.
    """

    patch: int
    least_pixels: int
    most_pixels: int

    def tokens(self, size: Size) -> int:
        """Columns times rows."""
        width, height = size
        columns, rows = round(width / self.patch), round(height / self.patch)
        pixels = columns * rows * self.patch**2
        if pixels > self.most_pixels:
            scale = math.sqrt(width * height / self.most_pixels)
            columns = max(1, math.floor(width / scale / self.patch))
            rows = max(1, math.floor(height / scale / self.patch))
        elif pixels < self.least_pixels:
            scale = math.sqrt(self.least_pixels / (width * height))
            columns, rows = math.ceil(width * scale / self.patch), math.ceil(height * scale / self.patch)
        return columns * rows

    def sees_all(self, size: Size) -> bool:
        """True unless the area is above the largest one."""
        return round(size[0] / self.patch) * round(size[1] / self.patch) * self.patch**2 <= self.most_pixels

    def sizes(self, size: Size) -> Iterator[Size]:
        """Whole patches, in sizes that the model does not enlarge."""
        for width, height in whole_patches(size, self.patch):
            if width * height >= self.least_pixels:
                yield width, height


@dataclass(frozen=True, slots=True, kw_only=True)
class BegunPatches:
    """A partial patch costs a whole token, and each row has a mark at its end; sides are limited.

    Pixtral, and the Mistral models since Mistral Small 3.1, with two patches of the encoder a side.
    Source: get_resize_output_image_size in transformers, image_processing_pixtral.py, and ImageEncoder
    in mistral-common, which rounds to the nearest pixel and not down; one pixel may cost one row more.
    """

    patch: int
    longest: int

    def tokens(self, size: Size) -> int:
        """Columns and a mark, for each row."""
        width, height = size
        ratio = max(size) / self.longest
        if ratio > 1:
            width, height = max(1, math.floor(width / ratio)), max(1, math.floor(height / ratio))
        return (math.ceil(width / self.patch) + 1) * math.ceil(height / self.patch)

    def sees_all(self, size: Size) -> bool:
        """True unless a side is longer than the limit."""
        return max(size) <= self.longest

    def sizes(self, size: Size) -> Iterator[Size]:
        """Whole patches."""
        return whole_patches(size, self.patch)


@dataclass(frozen=True, slots=True, kw_only=True)
class FilledPatches:
    """Every picture, small or large, is resized to as many whole patches as fit into `most` tokens.

    Gemma 4. Only the aspect of the picture changes the cost.
    Source: get_aspect_ratio_preserving_size in transformers, image_processing_gemma4.py.
    """

    patch: int
    most: int

    def tokens(self, size: Size) -> int:
        """Columns times rows."""
        columns, rows = self._grid(size)
        return columns * rows

    def sees_all(self, size: Size) -> bool:
        """True unless it has more pixels than the patches."""
        return size[0] * size[1] <= self.most * self.patch**2

    def sizes(self, size: Size) -> Iterator[Size]:
        """The size that the model makes of it, or the area of the patches if that would change again."""
        columns, rows = self._grid(size)
        made = min(size[0], columns * self.patch), min(size[1], rows * self.patch)
        is_cut = self.most in (columns, rows)  # the picture would be squeezed
        stays = not is_cut and self._grid(made) == (columns, rows)
        yield made if stays else of_area(size, self.most * self.patch**2)

    def _grid(self, size: Size) -> tuple[int, int]:
        width, height = size
        scale = math.sqrt(self.most * self.patch**2 / (width * height))
        columns, rows = math.floor(width * scale / self.patch), math.floor(height * scale / self.patch)
        if rows == 0:
            return min(width // height, self.most), 1
        if columns == 0:
            return 1, min(height // width, self.most)
        return columns, rows


def whole_patches(size: Size, patch: int) -> Iterator[Size]:
    """All sizes of whole patches that have this aspect, to the nearest patch, and are not larger.

    The longer side is a whole number of patches, and the shorter one follows. A side under one patch is only
    shrunk.
    """
    long, short = max(size), min(size)
    for count in range(long // patch, 0, -1):
        exact = count * patch * short / long
        if short < patch:
            other = max(1, round(exact))
        else:
            other = max(1, min(round(exact / patch), short // patch)) * patch
        yield (count * patch, other) if size[0] >= size[1] else (other, count * patch)
