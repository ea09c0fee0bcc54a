"""Reads how a picture must be turned to be upright: by its EXIF data, as browsers do."""

from PIL import ExifTags, Image

UPRIGHT = 1
"""The EXIF orientation of an image that needs no rotation."""

_EXIF_KEYS = ("exif", "Raw profile type exif")
"""Where Pillow keeps EXIF data in `info`; the second one is a text in a PNG of ImageMagick."""


def orientation_of(image: Image.Image, warnings: list[str]) -> int:
    """The EXIF orientation, 1 to 8; 1 if it is missing or invalid."""
    try:
        value = _exif(image).get(ExifTags.Base.Orientation, UPRIGHT)
    except Exception:  # noqa: BLE001  # broken EXIF data raises anything, but the pixels are intact
        warnings.append("its EXIF data is broken; treated as upright")
        return UPRIGHT
    return value if isinstance(value, int) and 1 <= value <= 8 else UPRIGHT


def announced_orientation(image: Image.Image) -> int:
    """The EXIF orientation from the header alone; 1 if it is not there."""
    return UPRIGHT if image.format == "TIFF" else orientation_of(image, [])  # see upright_size()


def upright_size(size: tuple[int, int], name: str | None, orientation: int) -> tuple[int, int]:
    """The declared width and height of an image after rotation to upright."""
    # Pillow swaps the sides of a TIFF when it opens it, and rotates the pixels when it loads them
    return size if name == "TIFF" or orientation < 5 else (size[1], size[0])


def _exif(image: Image.Image) -> Image.Exif:
    """The EXIF data without an orientation that only the XMP data has, which browsers ignore."""
    if image.format != "PNG" and (image.format == "TIFF" or "xmp" not in image.info):
        return image.getexif()
    # a stand-in: getexif() would look into the XMP data, and that of a PNG would decode it to find EXIF data
    # behind the pixels
    exif_only = Image.Image()
    exif_only.info = {key: image.info[key] for key in _EXIF_KEYS if key in image.info}
    return exif_only.getexif()
