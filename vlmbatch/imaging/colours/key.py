"""The one transparent colour of a PNG of 16 bits a channel (PNG third edition, section 11.3.1.1: tRNS)."""

from PIL import Image, ImageMath

_DEPTH = 24
"""The byte with the bits a channel, in the header of a PNG (section 11.2.1)."""


def narrow_key(image: Image.Image, data: bytes, warnings: list[str]) -> None:
    """Cut the transparent colour of an RGB picture of 16 bits to 8 bits, as Pillow cuts the pixels."""
    key = image.info.get("transparency")
    if image.format == "PNG" and data[_DEPTH] == 16 and isinstance(key, tuple):
        image.info["transparency"] = tuple(value >> 8 for value in key)
        warnings.append(
            "only 8 of the 16 bits of its transparent colour count, so similar colours are transparent, too"
        )


def with_key(shown: Image.Image, deep: Image.Image) -> Image.Image:
    """`shown`, which was made from 16-bit greys, `deep`; as RGBA if `deep` has a transparent grey."""
    key = deep.info.get("transparency")
    if not (deep.mode.startswith("I") and isinstance(key, int)):
        return shown
    visible = ImageMath.lambda_eval(lambda images: (images["deep"] != key) * 255, deep=deep.convert("I"))
    keyed = shown.convert("RGBA")
    keyed.putalpha(visible.convert("L"))
    return keyed
