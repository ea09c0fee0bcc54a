"""TIFF files: each kind of samples in each layout and compression."""

import itertools
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from sweep.case import Case, Cases
from sweep.pictures import EVEN, colours, grey, laid, picture, stepped
from sweep.seconds import same_samples, vips
from sweep.tiff_kinds import (
    BLACK_IS_ZERO,
    ORIENTATION,
    PHOTOMETRIC,
    POSITION,
    RGB,
    SUBSAMPLING,
    WHITE_IS_ZERO,
    YCBCR,
    Kind,
    kind_of,
    kinds,
    unsigned,
    ycc,
)
from sweep.tiff_writer import BILEVEL, COMPRESSIONS, Layout, assembled, written


def cases() -> Cases:
    """Each file."""
    for kind in kinds():
        yield from (_case(kind, layout) for layout in _layouts(kind))
    yield from _bilevel_cases()
    yield from _oriented_cases()
    yield from _subsampled_cases()
    yield from _picture_codec_cases()


def _case(kind: Kind, layout: Layout) -> Case:
    samples = kind.samples[..., 0] if kind.samples.shape[2] == 1 else kind.samples
    return Case(
        format="TIFF",
        name=f"{kind.name}, {layout}",
        data=written(kind.samples, kind.bits, kind.tags, layout),
        truth=kind.truth,
        decoders=(same_samples(samples, kind.truth), vips),
    )


def _layouts(kind: Kind) -> Iterator[Layout]:
    """Both byte orders, contiguous and planar, each compression and predictor; tiles and BigTIFF in turn."""
    planars = (False, True) if kind.samples.shape[2] > 1 else (False,)
    for number, (order, planar, compression) in enumerate(itertools.product("<>", planars, COMPRESSIONS)):
        layout = Layout(order=order, planar=planar, compression=compression)
        if planar and compression in ("LZMA", "Deflate"):  # like any other
            continue
        yield layout
        if compression == "none":
            yield replace(layout, big=True)
        if compression in ("none", "LZW", "Adobe Deflate"):
            yield replace(layout, tiled=True, big=number % 2 == 1)
        if compression in ("LZW", "Adobe Deflate", "ZSTD") and kind.bits >= 8 and kind.bits != 12:
            yield replace(layout, predictor=2, tiled=number % 4 == 1)
        if compression in ("Adobe Deflate", "ZSTD") and kind.is_float:
            yield replace(layout, predictor=3, big=number % 4 == 1)
        if compression == "none" and kind.bits == 1:
            yield replace(layout, fill_order=2)


def _bilevel_cases() -> Cases:
    values = stepped(grey(), 1)
    for compression, photometric, fill, order in itertools.product(BILEVEL, (0, 1), (1, 2), "<>"):
        name = ("white-is-zero 1", "grey 1")[photometric]
        stored = values if photometric else 1 - values
        kind = kind_of(name, unsigned(stored, 1), 1, photometric, picture(values))
        yield _case(kind, Layout(order=order, compression=compression, fill_order=fill))


def _oriented_cases() -> Cases:
    for orientation, order in itertools.product(range(1, 9), "<>"):
        for bits, values, photometric in (
            (8, colours(), RGB),
            (16, colours(), RGB),
            (8, grey(), BLACK_IS_ZERO),
            (16, grey(), BLACK_IS_ZERO),
            (1, stepped(grey(), 1), WHITE_IS_ZERO),
        ):
            stored = 1 - values if photometric == WHITE_IS_ZERO else values
            kind = kind_of(
                f"{'RGB' if values.ndim == 3 else 'grey'} {bits}, orientation {orientation}",
                laid(unsigned(stored, bits), orientation),
                bits,
                photometric,
                picture(values),
                tags={ORIENTATION: (orientation,)},
            )
            for compression in ("none", "LZW"):
                yield _case(kind, Layout(order=order, compression=compression))


def _subsampled_cases() -> Cases:
    """Uncompressed YCbCr: a data unit has the luma of a block, then its Cb and Cr (TIFF 6.0 section 21)."""
    for (across, down), order, compression in itertools.product(
        ((2, 1), (1, 2), (2, 2), (4, 1), (4, 2)), "<>", ("none", "LZW", "Adobe Deflate")
    ):
        size = EVEN
        samples = ycc(colours(size))
        layout = Layout(order=order, compression=compression)
        strips = [_units(samples[top : top + 64], across, down) for top in range(0, size[1], 64)]
        tags = {PHOTOMETRIC: (YCBCR,), SUBSAMPLING: (across, down), POSITION: (1,)}
        tags |= {258: (8, 8, 8), 277: (3,), 284: (1,)}
        yield Case(
            format="TIFF",
            name=f"YCbCr 8 in blocks of {across}x{down}, {layout}",
            data=assembled([COMPRESSIONS[compression]([strip]) for strip in strips], size, tags, layout),
            truth=picture(colours(size)),
            decoders=(vips,),
        )


def _units(strip: NDArray[np.uint8], across: int, down: int) -> bytes:
    height, width, _ = strip.shape
    blocks = strip.reshape(height // down, down, width // across, across, 3).transpose(0, 2, 1, 3, 4)
    luma = blocks[..., 0].reshape(*blocks.shape[:2], -1)
    chroma = np.rint(blocks[..., 1:].mean(axis=(2, 3))).astype(np.uint8)
    return np.concatenate((luma, chroma), axis=2).tobytes()


def _picture_codec_cases() -> Cases:
    """Strips and tiles that are JPEG or WebP pictures of their own."""
    rgb = np.rint(colours() * 255).astype(np.uint8)
    shades = unsigned(grey(), 8)
    whole = {"RGB 8": (rgb, RGB), "YCbCr 8": (rgb, YCBCR), "grey 8": (shades, BLACK_IS_ZERO)}
    for (name, (samples, photometric)), order, tiled in itertools.product(whole.items(), "<>", (False, True)):
        tags = {SUBSAMPLING: (1, 1)} if photometric == YCBCR else {}
        truth = picture(colours() if samples.shape[2] == 3 else grey())
        kind = kind_of(name, samples, 8, photometric, truth, tags=tags)
        for compression in ("JPEG", "WebP") if name == "RGB 8" else ("JPEG",):
            yield _case(kind, Layout(order=order, tiled=tiled, compression=compression))
