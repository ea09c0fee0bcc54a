"""The one transparent colour of a PNG without alpha (PNG third edition, section 11.3.1.1: tRNS)."""

from PIL import Image

_DEPTH = 24
"""The byte with the bits a channel, in the header of a PNG (section 11.2.1)."""


def fit_transparent_colour(image: Image.Image, data: bytes, warnings: list[str]) -> None:
    """Scale the transparent colour of a loaded PNG as Pillow scales the pixels; only its low bits count.

    Pillow cuts RGB of 16 bits to 8, and spreads grey of 2 and 4 bits over 8, but leaves the colour alone.
    """
    key = image.info.get("transparency")
    if image.format != "PNG" or not isinstance(key, (int, tuple)) or image.mode not in ("L", "RGB"):
        return
    bits = data[_DEPTH]
    if isinstance(key, int):
        most = 2**bits - 1
        image.info["transparency"] = (key & most) * 255 // most
    elif bits == 16:
        image.info["transparency"] = tuple(value >> 8 for value in key)
        warnings.append(
            "only 8 of the 16 bits of its transparent colour count, so similar colours are transparent, too"
        )
    else:
        image.info["transparency"] = tuple(value & 255 for value in key)


def with_transparent_grey(shown: Image.Image, deep: Image.Image) -> Image.Image:
    """`shown`, which was made from 16-bit greys, `deep`; as RGBA if `deep` has a transparent grey."""
    key = deep.info.get("transparency")
    if not (deep.mode.startswith("I") and isinstance(key, int)):
        return shown
    visible = deep.convert("I").point([255 * (value != key) for value in range(65536)], "L")
    keyed = shown.convert("RGBA")
    keyed.putalpha(visible)
    return keyed
