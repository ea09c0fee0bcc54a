"""Finds the colour space of an opened picture: an ICC profile, or what the file says instead of one."""

from PIL import ImageFile

from vlmbatch.imaging import cicp, png_colour
from vlmbatch.imaging.cicp import Cicp
from vlmbatch.imaging.heif_structure import HeifStructure

ColourSpace = bytes | Cicp | None
"""An ICC profile, the code points of an HDR space, or None for sRGB."""


def colour_space_of(
    image: ImageFile.ImageFile, data: bytes, boxes: HeifStructure | None, warnings: list[str]
) -> ColourSpace:
    """The colour space of an opened picture; `data` are its bytes, `boxes` those of an AVIF or HEIC.

    A space that is broken or not supported counts as sRGB, and adds a warning.
    """
    try:
        return _colour_space(image, data, boxes)
    except ValueError as error:
        warnings.append(f"{error}; colours may be wrong")
        return None


def _colour_space(image: ImageFile.ImageFile, data: bytes, boxes: HeifStructure | None) -> ColourSpace:
    """An ICC profile counts more than code points, but less than the chunk cICP of a PNG.

    The sources are MIAF (ISO/IEC 23000-22) section 7.3.6.4, and PNG, third edition, section 4.3.
    """
    codes = png_colour.cicp_of(data) if image.format == "PNG" else None
    if codes is None:
        profile = image.info.get("icc_profile")
        if profile or image.mode == "CMYK":
            return profile
        codes = boxes.cicp if boxes else None
    if codes is not None:
        return codes if codes.is_hdr else cicp.profile_of(codes)
    if image.format == "PNG":
        return None if "srgb" in image.info else png_colour.profile_of(image.info)
    return None
