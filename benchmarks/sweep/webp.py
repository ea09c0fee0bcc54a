"""WebP files: lossy and lossless, with alpha, animated, and turned by EXIF."""

import io
import itertools
from typing import Any

import numpy as np
from PIL import Image

from sweep.case import Case, Cases
from sweep.pictures import EVEN, ODD, Picture, colours, laid, opacity, picture
from sweep.seconds import codec, vips


def cases() -> Cases:
    """Each file."""
    for size, method in itertools.product((EVEN, ODD), (0, 3, 6)):
        name = f"{size[0]}x{size[1]}, method {method}"
        rgb = Image.fromarray(picture(colours(size)))
        rgba = _with_alpha(size)
        seen, blended = picture(colours(size)), picture(colours(size), opacity(size))
        for kind, options in (
            ("lossy", {"quality": 95}),
            ("lossless", {"lossless": True}),
            ("sharp lossy", {"quality": 95, "use_sharp_yuv": True}),
        ):
            yield _case(f"{kind} RGB, {name}", _saved(rgb, method=method, **options), seen)
            yield _case(f"{kind} RGBA, {name}", _saved(rgba, method=method, **options), blended)
    for lossless in (False, True):
        yield from _animated_cases(lossless=lossless)
        yield from _oriented_cases(lossless=lossless)


def _case(name: str, data: bytes, truth: Picture) -> Case:
    return Case(format="WebP", name=name, data=data, truth=truth, decoders=(vips, codec("webp")))


def _with_alpha(size: tuple[int, int] = ODD) -> Image.Image:
    mixed = np.dstack((colours(size), opacity(size)))
    return Image.fromarray(np.rint(mixed * 255).astype(np.uint8))


def _saved(image: Image.Image, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, "WEBP", **options)
    return out.getvalue()


def _animated_cases(*, lossless: bool) -> Cases:
    other = Image.fromarray(picture(colours())[::-1])
    way = "lossless" if lossless else "lossy"
    options = {"save_all": True, "append_images": [other], "lossless": lossless, "quality": 95}
    rgb = Image.fromarray(picture(colours()))
    yield _case(f"animation, RGB {way}", _saved(rgb, **options), picture(colours()))
    yield _case(f"animation, RGBA {way}", _saved(_with_alpha(), **options), picture(colours(), opacity()))


def _oriented_cases(*, lossless: bool) -> Cases:
    for orientation in range(1, 9):
        image = Image.fromarray(laid(picture(colours()), orientation))
        exif = Image.Exif()
        exif[274] = orientation
        data = _saved(image, lossless=lossless, quality=95, exif=exif.tobytes())
        yield _case(
            f"EXIF orientation {orientation}, {'lossless' if lossless else 'lossy'}", data, picture(colours())
        )
