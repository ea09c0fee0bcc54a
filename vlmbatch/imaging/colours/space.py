"""Finds the colour space of an opened picture: an ICC profile, or what the file says instead of one."""

from PIL import ExifTags, Image, ImageFile

from vlmbatch.imaging.colours import cicp
from vlmbatch.imaging.colours.cicp import Cicp
from vlmbatch.imaging.colours.matrix_profile import Chromaticities, Curve, matrix_profile
from vlmbatch.imaging.jpeg.profile import jpeg_profile
from vlmbatch.imaging.png import colour_space as png
from vlmbatch.imaging.survey import Survey

ColourSpace = bytes | Cicp | None
"""An ICC profile, the code points of an HDR space, or None for sRGB."""

# Adobe RGB (1998) Color Image Encoding, version 2005-05, section 4.3
_ADOBE_RGB = matrix_profile(
    Chromaticities((0.64, 0.33), (0.21, 0.71), (0.15, 0.06), (0.3127, 0.3290)), Curve(563 / 256)
)
_ADOBE_RGB_INDEX = "R03"  # the tag InteroperabilityIndex in files of this space (DCF 2.0, CIPA DC-009)
_SRGB, _OLD_ADOBE_RGB = 1, 2  # of the tag ColorSpace; cameras wrote 2 before there was R03
_SAYS_SRGB = {b"MM": b"\xa0\1\0\3\0\0\0\1\0\1", b"II": b"\1\xa0\3\0\1\0\0\0\1\0"}
"""The entry of ColorSpace, by the order of bytes, in almost all photos."""
_SIGNATURE = slice(36, 40)  # of an ICC profile (ICC.1:2022 section 7.2)
_PADDING = 3  # bytes, which some programs leave out at the end


def colour_space_of(image: ImageFile.ImageFile, file: Survey, warnings: list[str]) -> ColourSpace:
    """The colour space of an opened picture.

    A space that is broken or not supported counts as sRGB, and adds a warning.
    """
    try:
        return _colour_space(image, file)
    except ValueError as error:
        warnings.append(f"{error}; colours may be wrong")
        return None


def profile_of_pixels(image: Image.Image) -> bytes | None:
    """The ICC profile of a PIL image, from the facts that Pillow keeps of its file; None if it is sRGB.

    Raises:
        ValueError: the description of its colours is impossible.
    """
    profile = image.info.get("icc_profile")
    if isinstance(profile, bytes) and profile:
        return profile
    if image.mode in ("CMYK", "LAB") or "srgb" in image.info:
        return None
    return png.profile_of(image.info) or (_ADOBE_RGB if _is_adobe_rgb(image) else None)


def _colour_space(image: ImageFile.ImageFile, file: Survey) -> ColourSpace:
    """An ICC profile counts more than code points, but less than the chunk cICP of a PNG.

    The sources are MIAF (ISO/IEC 23000-22) section 7.3.6.4, and PNG, third edition, section 4.3.
    """
    if image.mode == "LAB":  # its numbers are colours as they are
        return None
    codes = png.cicp_of(file.data) if image.format == "PNG" else None
    if codes is None:
        profile = _profile(image)
        if profile:
            codes = cicp.codes_of(profile)
            return codes if codes is not None and codes.is_hdr else profile
        if image.mode == "CMYK":
            return None
        codes = file.heif.cicp if file.heif else None
    if codes is not None:
        return codes if codes.is_hdr else cicp.profile_of(codes)
    if image.format == "PNG":
        return None if "srgb" in image.info else png.profile_of(image.info)
    return _ADOBE_RGB if _is_adobe_rgb(image) else None


def _profile(image: ImageFile.ImageFile) -> bytes | None:
    """The ICC profile in the file.

    Raises:
        ValueError: a part of it is missing.
    """
    if image.format in ("JPEG", "MPO"):
        profile = jpeg_profile(image)
    else:
        profile = image.info.get("icc_profile")
        if profile is None and "icc_profile" in image.info:  # Pillow could not decompress it
            raise ValueError("its colour profile is damaged")
    is_whole = not profile or len(profile) + _PADDING >= int.from_bytes(profile[:4], "big")
    if profile and profile[_SIGNATURE] == b"acsp" and not is_whole:
        raise ValueError("its colour profile is incomplete")
    return profile


def _is_adobe_rgb(image: Image.Image) -> bool:
    """Whether the EXIF data says so, as cameras do."""
    exif = (image.info.get("exif") or b"").removeprefix(b"Exif\0\0")
    says_srgb = _SAYS_SRGB.get(exif[:2])
    if says_srgb is None or says_srgb in exif:  # to read all of its tags would take ten times as long
        return False
    try:
        tags = Image.Image.getexif(image)
        space = tags.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.ColorSpace)
        index = tags.get_ifd(ExifTags.IFD.Interop).get(ExifTags.Interop.InteropIndex)
    except Exception:  # noqa: BLE001  # broken EXIF data raises anything, but the pixels are intact
        return False
    return space == _OLD_ADOBE_RGB or (space != _SRGB and str(index).startswith(_ADOBE_RGB_INDEX))
