"""The second decoders: libvips, imagecodecs and tifffile, which share no code with Pillow's plug-ins."""

import io
from collections.abc import Callable
from typing import Any

import imagecodecs
import numpy as np
import pyvips
import tifffile
from numpy.typing import NDArray

from sweep.case import Decoder
from sweep.pictures import Picture, picture


def vips(data: bytes) -> Picture:
    """What libvips sees: upright, sRGB, on white."""
    image = pyvips.Image.new_from_buffer(data, "").autorot().colourspace("srgb")
    if image.hasalpha():
        image = image.flatten(background=[255])
    image = image.cast("uchar")
    pixels = np.frombuffer(image.write_to_memory(), np.uint8)
    return pixels.reshape(image.height, image.width, image.bands)[..., :3]


def codec(name: str, **options: Any) -> Decoder:
    """The decoder of imagecodecs for a format: grey, RGB or RGBA as it lies in the file."""

    def decoder(data: bytes) -> Picture:
        return of_samples(getattr(imagecodecs, f"{name}_decode")(data, **options))

    decoder.__name__ = f"imagecodecs {name}"
    return decoder


def of_samples(samples: NDArray[Any], white: int | None = None) -> Picture:
    """Unsigned grey, grey and alpha, RGB or RGBA samples as a picture on white."""
    values = samples / float(white or np.iinfo(samples.dtype).max)
    values = values[..., None] if values.ndim == 2 else values
    count = values.shape[2]
    rgb = values[..., :1].repeat(3, axis=2) if count < 3 else values[..., :3]
    return picture(rgb, values[..., -1] if count in (2, 4) else None)


def same_samples(samples: NDArray[Any], truth: Picture) -> Callable[[bytes], Picture]:
    """A decoder that gives the truth if tifffile reads exactly these samples."""

    def tiff_samples(data: bytes) -> Picture:
        read = tifffile.imread(io.BytesIO(data), key=0)
        if read.size == samples.size and read.ndim == 3 and read.shape != samples.shape:
            read = np.moveaxis(read, 0, -1)  # separate planes come first
        if not np.array_equal(read.reshape(samples.shape), samples):
            raise ValueError("it reads other samples")
        return truth

    return tiff_samples
