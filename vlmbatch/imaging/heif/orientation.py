"""Warns about an AVIF or HEIC that is turned by its EXIF data alone: viewers show it unturned."""

from PIL import ExifTags, Image, ImageFile

from vlmbatch.imaging.heif.structure import HeifStructure
from vlmbatch.imaging.orientation import UPRIGHT

_EXIF = 4  # its place among the facts of Pillow's AVIF decoder


def check_orientation(image: ImageFile.ImageFile, structure: HeifStructure, warnings: list[str]) -> None:
    """Add a warning if the EXIF data of an opened picture turns it, and its properties do not.

    Only the properties irot and imir decide (ISO/IEC 23008-12 sections 6.5.10 and 6.5.12).
    """
    if structure.has_turn:
        return
    orientation = _avif_orientation(image) if image.format == "AVIF" else _heic_orientation(image)
    if isinstance(orientation, int) and UPRIGHT < orientation <= 8:
        warnings.append(
            f"only its EXIF data says that it is turned (orientation {orientation}); "
            "it was sent unturned, as browsers show it; if that is wrong, save it upright and run again"
        )


def _heic_orientation(image: ImageFile.ImageFile) -> object:
    # pillow-heif then overwrites it in the EXIF data, so that it is not applied to the rotated picture
    return image.info.get("original_orientation")


def _avif_orientation(image: ImageFile.ImageFile) -> object:
    # Pillow, too, overwrites it in `info`
    tags = Image.Exif()
    try:
        tags.load(image._decoder.get_info()[_EXIF] or b"")  # type: ignore[attr-defined]  # of AvifImageFile
        return tags.get(ExifTags.Base.Orientation)
    except Exception:  # noqa: BLE001  # broken EXIF data raises anything, but the pixels are intact
        return None
