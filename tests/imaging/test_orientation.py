"""What turns a picture, and what does not."""

from typing import Any

import pytest
from pictures import OPTIONS, RED, assert_near, encoded, exif, pixel, quarters
from PIL.PngImagePlugin import PngInfo

from vlmbatch.imaging.prepare import inspect, prepare

XMP = '<x:xmpmeta xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/>'


def with_xmp(name: str, **options: Any) -> bytes:
    """A picture of 96x64, red at its top left, whose XMP data has orientation 6."""
    if name == "PNG":
        info = PngInfo()
        info.add_itxt("XML:com.adobe.xmp", XMP)
        return encoded(quarters(96, 64), name, pnginfo=info, **options)
    return encoded(quarters(96, 64), name, xmp=XMP.encode(), **options)


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_xmp_data_alone_turns_nothing(name: str) -> None:
    """An orientation that only the XMP data has is ignored, as in browsers."""
    prepared = prepare(with_xmp(name), OPTIONS)
    assert (prepared.width, prepared.height, prepared.warnings) == (96, 64, ())
    assert_near(pixel(prepared, 0.25, 0.25), RED)
    assert prepared.is_original == (name == "JPEG")
    assert inspect(with_xmp(name)).width == 96


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "AVIF"])
@pytest.mark.parametrize(("orientation", "size"), [(1, (96, 64)), (3, (96, 64)), (8, (64, 96))])
def test_exif_data_counts_beside_xmp_data(name: str, orientation: int, size: tuple[int, int]) -> None:
    """EXIF data turns a picture, whatever its XMP data says."""
    prepared = prepare(with_xmp(name, exif=exif(orientation)), OPTIONS)
    assert (prepared.width, prepared.height) == size
