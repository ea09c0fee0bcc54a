"""Decodes with tifffile the kinds of TIFF that Pillow does not know or gets wrong."""

import functools
import logging
import math
import warnings
from collections.abc import Iterator
from io import BytesIO
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageFile, TiffImagePlugin

from vlmbatch.errors import ImageError
from vlmbatch.imaging.geometry import upright
from vlmbatch.imaging.tiff.colours import picture_of
from vlmbatch.imaging.tiff.layout import JPEG, PLANAR, WEBP, Layout, layout_of
from vlmbatch.imaging.tiff.rewrite import single_page

if TYPE_CHECKING:
    import tifffile
    from numpy.typing import NDArray

_ORIENTATION, _JPEG_TABLES = 274, 347
_MOST_REPEATED = 10
"""Strips may share bytes of the file, but no real picture unpacks its whole file so many times."""
_LARGE = 1 << 24  # pixels of a tile that is larger than its picture


@functools.cache
def has_tifffile() -> bool:
    """Whether the packages of the extra `tiff` are installed."""
    try:
        import imagecodecs  # noqa: F401  # tifffile can do without, but then decodes next to nothing
        import tifffile  # noqa: F401
    except ImportError:
        return False
    return True


class TifffileImage(ImageFile.ImageFile):
    """A TIFF whose first page tifffile decodes, after all metadata was taken out.

    Like Pillow's own, it turns itself upright when it is loaded, and has the upright size before.

    Raises:
        ImageError: bad_image, the kind of picture is not known, or the extra `tiff` is missing.
    """

    format = "TIFF"
    warnings: list[str]
    """What was done to the samples, known after load()."""
    layout: Layout
    unpacked: int
    """Bytes that tifffile holds for the samples, a strip or tile, and the file."""

    def _open(self) -> None:
        assert self.fp is not None
        self.fp.seek(0)
        file = self.fp = BytesIO(single_page(self.fp.read()))
        self.tags = TiffImagePlugin.ImageFileDirectory_v2(file.read(8))
        file.seek(self.tags.next)
        self.tags.load(file)
        self.layout = layout_of(self.tags)
        if not has_tifffile():
            raise ImageError(
                f"this kind of TIFF ({self.layout.described}) needs one more decoder;"
                ' install it with: pip install "vlmbatch[tiff]"',
                retryable=True,
            )
        self.warnings = []
        self.unpacked = _unpacked(self.layout, self.tags) + file.seek(0, 2)
        modes = {"P": "RGB"}
        self._mode = modes.get(self.layout.colours, self.layout.colours)
        is_faded = self._mode == "LAB" or self.layout.lightens_inks
        if self.layout.alpha is not None and not is_faded:
            self._mode = "RGBA"
        width, height = self.layout.size
        self._size = (height, width) if self.orientation >= 5 else (width, height)
        if profile := self.tags.get(TiffImagePlugin.ICCPROFILE):
            self.info["icc_profile"] = profile

    @property
    def orientation(self) -> int:
        """The orientation of the pixels in the file, 1 to 8."""
        value = self.tags.get(_ORIENTATION, 1)
        return value if isinstance(value, int) and 1 <= value <= 8 else 1

    def load(self) -> Any:
        """Decode the samples.

        Raises:
            ImageError: bad_image, they are cut short or hostile.
        """
        if self._im is None:
            colour_map = tuple(self.tags.get(TiffImagePlugin.COLORMAP, ()))
            samples = _samples(self.fp, self.layout)
            picture = picture_of(samples, self.layout, colour_map, self.warnings)
            del samples
            used = self.layout.channels + (self.layout.alpha is not None)
            if self.layout.samples > used:
                verb = "was" if used == 1 else "were"
                self.warnings.append(f"only {used} of its {self.layout.samples} channels {verb} used")
            picture = upright(picture, self.orientation)
            self._im, self._mode, self._size = picture.im, picture.mode, picture.size
        return Image.Image.load(self)


def _item_bytes(layout: Layout) -> int:
    return next(size for size in (1, 2, 4, 8) if layout.bits <= 8 * size)


def _block_size(layout: Layout, tags: TiffImagePlugin.ImageFileDirectory_v2) -> tuple[int, int]:
    """Width and height of a tile or strip."""
    width, height = tags.get(TiffImagePlugin.TILEWIDTH), tags.get(TiffImagePlugin.TILELENGTH)
    if not (isinstance(width, int) and isinstance(height, int)):
        rows = int(tags.get(TiffImagePlugin.ROWSPERSTRIP, layout.size[1]))
        return layout.size[0], min(rows, layout.size[1])
    if width * height > max(_LARGE, 4 * layout.size[0] * layout.size[1]):
        raise ImageError(f"the TIFF has tiles of {width}x{height} pixels, unlike any real picture")
    return width, height


def _unpacked(layout: Layout, tags: TiffImagePlugin.ImageFileDirectory_v2) -> int:
    width, height = _block_size(layout, tags)
    item, pixels = _item_bytes(layout), layout.size[0] * layout.size[1]
    # unpacked, put into the byte order of the machine, and added up if there is a predictor
    block = 3 * width * height * (1 if layout.planar else layout.samples) * item
    kept = layout.channels + (layout.alpha is not None)
    return block + pixels * kept * (item + 4) + pixels * (12 if layout.colours == "P" else 0)


def _samples(file: Any, layout: Layout) -> "NDArray[Any]":
    """The samples, of shape (height, width, channels), with transparency last and nothing else."""
    import numpy as np
    import tifffile

    _silence()
    data = file.getvalue()
    page: Any = tifffile.TiffFile(BytesIO(data)).pages.first
    kept = layout.channels + (layout.alpha is not None)
    if page.dtype is None:
        raise ImageError(
            f"the TIFF has pixel values of {layout.bits} bits, which cannot be decoded; convert it first"
        )
    result = np.empty((page.imagelength, page.imagewidth, kept), page.dtype)
    for index, coded in _coded_blocks(data, page, kept):
        decoded, place, _ = page.decode(coded, index, _fullsize=page.is_tiled, **_tables(page, coded))
        plane, _, top, left, _ = place
        target = result[top : top + decoded.shape[1], left : left + decoded.shape[2]]
        part = decoded[0, : target.shape[0], : target.shape[1]]
        if layout.planar:
            target[..., plane] = part[..., 0]
        else:
            target[...] = part[..., :kept]
    return result.view(np.uint8) if result.dtype == np.bool_ else result


def _coded_blocks(data: bytes, page: "tifffile.TiffPage", kept: int) -> Iterator[tuple[int, bytes]]:
    """Number and bytes of each strip or tile that is needed."""
    width, height = _block_of(page)
    needed = math.ceil(page.imagewidth / width) * math.ceil(page.imagelength / height)
    if page.planarconfig == PLANAR:
        needed *= kept
    places = list(zip(page.dataoffsets, page.databytecounts, strict=False))[:needed]
    if len(places) < needed or not all(size for _, size in places):
        raise ImageError("the TIFF is truncated: some of its strips or tiles are missing; get a whole copy")
    if sum(size for _, size in places) > _MOST_REPEATED * len(data) + _LARGE:
        raise ImageError("the strips of the TIFF overlap, unlike those of any real picture")
    view = memoryview(data)
    for index, (at, size) in enumerate(places):
        yield index, bytes(view[at : at + size])


def _block_of(page: "tifffile.TiffPage") -> tuple[int, int]:
    """Width and height of a tile or strip."""
    return (page.tilewidth, page.tilelength) if page.is_tiled else (page.imagewidth, page.rowsperstrip)


def _tables(page: "tifffile.TiffPage", coded: bytes) -> dict[str, Any]:
    """The tables of a JPEG in the TIFF, whose size, and that of a WebP, may not exceed that of its tile."""
    if page.compression not in (JPEG, WEBP):
        return {}
    width, height = _block_of(page)
    with Image.open(BytesIO(coded), formats=("JPEG", "WEBP")) as block:
        if block.width > width or block.height > height:
            raise ImageError("the TIFF holds a tile that is larger than it declares")
    return {"jpegtables": page.jpegtables} if page.compression == JPEG else {}


@functools.cache
def _silence() -> None:
    """Keep what tifffile logs and numpy warns about odd files from the terminal; real errors raise."""
    logging.getLogger("tifffile").addHandler(logging.NullHandler())
    warnings.filterwarnings("ignore", category=RuntimeWarning, module="tifffile")
