"""Converts every colour mode that Pillow decodes to plain sRGB, 8 bits a channel, without transparency."""

import functools
from dataclasses import dataclass
from io import BytesIO

from PIL import Image, ImageChops, ImageCms

from vlmbatch.imaging.colours.deep_samples import in_eight_bits
from vlmbatch.imaging.colours.transparent_colour import with_transparent_grey
from vlmbatch.imaging.gif.screen import on_white_screen

_MODE_OF_SPACE = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}

_UNUSABLE = (ImageCms.PyCMSError, OSError, TypeError, ValueError)
"""The exceptions that a broken profile raises."""
_REMEMBERED_BYTES = 65_536
"""A camera writes the same few kilobytes into each of its files; larger profiles are not cached."""


def in_plain_colours(image: Image.Image, warnings: list[str]) -> Image.Image:
    """The picture as RGB, YCbCr, RGBA, L or CMYK: modes that can be resized without visible loss."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return with_transparent_grey(in_eight_bits(image, warnings), image)
    image = on_white_screen(image)
    if image.has_transparency_data:
        if image.mode == "La":  # Pillow converts this one to nothing else
            image = image.convert("LA")
        # programs that write BMP leave the fourth byte of a pixel empty, which viewers take for opaque
        opaque = ((255, 255), (0, 0)) if image.format == "BMP" else ((255, 255),)
        image = image if image.mode == "RGBA" else image.convert("RGBA")
        is_opaque = image.getchannel("A").getextrema() in opaque
        return image.convert("RGB") if is_opaque else image
    if image.mode in ("RGB", "YCbCr", "L", "CMYK"):
        return image
    return image.convert("L" if image.mode == "1" else "RGB")


def on_white(image: Image.Image) -> Image.Image:
    """The picture on a white background, without the hidden colours of transparent pixels."""
    if image.mode != "RGBA":
        return image
    white = Image.new("RGB", image.size, "white")
    white.paste(image, mask=image)
    return white


def to_srgb(image: Image.Image, profile: bytes | None, warnings: list[str]) -> Image.Image:
    """The picture as RGB, RGBA or YCbCr, converted to sRGB from its ICC profile, if it has one.

    A bad profile only adds a warning.
    """
    if image.mode == "RGBA":
        if not profile:
            return image
        colours = to_srgb(image.convert("RGB"), profile, warnings)
        colours.putalpha(image.getchannel("A"))
        return colours
    if profile and not (image.mode == "YCbCr" and is_srgb(profile)):
        try:
            return _from_profile(image.convert("RGB") if image.mode == "YCbCr" else image, profile)
        except _UNUSABLE as error:
            warnings.append(f"its colour profile cannot be used; colours may be wrong: {error}")
    return image if image.mode in ("RGB", "YCbCr") else image.convert("RGB")


def is_srgb(profile: bytes) -> bool:
    """Whether the profile is valid and leaves RGB values unchanged; its name is not reliable."""
    try:
        return _conversion(profile).changes_nothing
    except _UNUSABLE:
        return False


@dataclass(frozen=True, slots=True)
class _Conversion:
    """The conversion to sRGB from one profile, for pictures of `mode`; it may change nothing."""

    space: str
    mode: str
    transform: ImageCms.ImageCmsTransform
    changes_nothing: bool


def _from_profile(image: Image.Image, profile: bytes) -> Image.Image:
    conversion = _conversion(profile)
    if image.mode == "L" and conversion.mode == "RGB":
        image = image.convert("RGB")
    elif (
        conversion.mode == "L" and image.mode == "RGB" and _is_grey(image)
    ):  # a grey picture with transparency or a palette became RGB
        image = image.convert("L")
    if conversion.mode != image.mode:
        raise ValueError(f"the profile is for {conversion.space}, the picture is {image.mode}")
    return image if conversion.changes_nothing else _applied(conversion.transform, image)


def _conversion(profile: bytes) -> _Conversion:
    return (_remembered if len(profile) <= _REMEMBERED_BYTES else _made)(profile)


def _made(profile: bytes) -> _Conversion:
    source = ImageCms.ImageCmsProfile(BytesIO(profile))
    space = source.profile.xcolor_space.strip()
    mode = _MODE_OF_SPACE.get(space)
    if mode is None:
        raise ValueError(f"the profile is for {space}")
    transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    return _Conversion(space, mode, transform, mode == "RGB" and _changes_nothing(transform))


# threads may share a transform: lcms2 keeps its pixel cache for each call
_remembered = functools.lru_cache(maxsize=16)(_made)


def _applied(transform: ImageCms.ImageCmsTransform, image: Image.Image) -> Image.Image:
    converted = ImageCms.applyTransform(image, transform)
    if converted is None:  # only if it works in place
        raise ValueError("nothing was converted")
    return converted


def _is_grey(image: Image.Image) -> bool:
    red, green, blue = image.split()
    pairs = (ImageChops.difference(red, green), ImageChops.difference(green, blue))
    return all(difference.getbbox() is None for difference in pairs)


def _changes_nothing(transform: ImageCms.ImageCmsTransform) -> bool:
    """Whether the transform leaves colours from all over the RGB cube unchanged."""
    steps = range(0, 256, 51)
    colours = bytes(value for r in steps for g in steps for b in steps for value in (r, g, b))
    probe = Image.frombytes("RGB", (len(colours) // 3, 1), colours)
    return max(ImageChops.difference(probe, _applied(transform, probe)).tobytes()) <= 1
