"""TIFF files: each kind of samples in each layout and compression."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sweep.case import Case, Cases
from sweep.pictures import (
    EVEN,
    ODD,
    Picture,
    Values,
    colours,
    grey,
    indexed,
    laid,
    levels,
    opacity,
    picture,
    stepped,
)
from sweep.seconds import same_samples, vips
from sweep.tiff_writer import BILEVEL, COMPRESSIONS, Layout, Samples, assembled, written

Tags = dict[int, tuple[int, ...]]
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, SEPARATED, YCBCR, CIELAB, ICCLAB = 0, 1, 2, 3, 5, 6, 8, 9
_PHOTOMETRIC, _ORIENTATION, _COLOUR_MAP, _EXTRA, _SUBSAMPLING, _POSITION = 262, 274, 320, 338, 530, 531
_UNSPECIFIED, _ASSOCIATED, _UNASSOCIATED = 0, 1, 2
_D50 = (0.9642, 1.0, 0.8251)
_TO_XYZ_D50 = ((0.4361, 0.3851, 0.1431), (0.2225, 0.7169, 0.0606), (0.0139, 0.0971, 0.7141))


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """Samples, and what they mean."""

    name: str
    samples: Samples
    bits: int
    tags: Tags
    truth: Picture

    @property
    def is_float(self) -> bool:
        """Whether the third predictor applies."""
        return self.samples.dtype.kind == "f"


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
        yield layout
        if compression in ("none", "LZW", "Adobe Deflate"):
            yield replace(layout, tiled=True, big=number % 2 == 0)
        if compression in ("LZW", "Adobe Deflate", "ZSTD") and kind.bits >= 8 and kind.bits != 12:
            yield replace(layout, predictor=2, tiled=number % 4 == 1)
        if compression in ("Adobe Deflate", "ZSTD") and kind.is_float:
            yield replace(layout, predictor=3, big=number % 4 == 1)
        if compression == "none" and kind.bits == 1:
            yield replace(layout, fill_order=2)


def kinds() -> Iterator[Kind]:
    """Each kind of samples."""
    yield from _grey_kinds()
    yield from _signed_kinds()
    yield from _float_kinds()
    yield from _palette_kinds()
    yield from _colour_kinds()
    yield from _alpha_kinds()
    yield from _ink_kinds()
    yield from _lab_kinds()


def _unsigned(values: Values, bits: int) -> Samples:
    kind = next(size for size in (8, 16, 32, 64) if size >= bits)
    whole = levels(values, bits).astype(f"u{kind // 8}")
    return whole[..., None] if whole.ndim == 2 else whole


def _grey_kinds() -> Iterator[Kind]:
    for bits, size in ((1, ODD), (2, ODD), (4, ODD), (8, ODD), (12, EVEN), (16, ODD), (32, ODD), (64, EVEN)):
        values = stepped(grey(size), bits) if bits < 8 else grey(size)
        truth = picture(values)
        yield _of(f"grey {bits}", _unsigned(values, bits), bits, BLACK_IS_ZERO, truth)
        yield _of(f"white-is-zero {bits}", _unsigned(1 - values, bits), bits, WHITE_IS_ZERO, truth)
    twelve = levels(grey(), 12).astype(np.uint16)[..., None]
    yield _of("grey 16 with a white of 4095", twelve, 16, BLACK_IS_ZERO, picture(grey()))


def _signed_kinds() -> Iterator[Kind]:
    for bits in (8, 16, 32):
        whole = levels(grey(), bits).astype(np.int64) - 2 ** (bits - 1)
        name = f"signed grey {bits} from the least to the greatest"
        yield _of(name, whole.astype(f"i{bits // 8}")[..., None], bits, BLACK_IS_ZERO, picture(grey()))
        half = levels(grey(), bits - 1).astype(f"i{bits // 8}")[..., None]
        yield _of(f"signed grey {bits} from 0", half, bits, BLACK_IS_ZERO, picture(grey()))
    inverted = levels(1 - grey(), 15).astype("i2")[..., None]
    yield _of("signed white-is-zero 16 from 0", inverted, 16, WHITE_IS_ZERO, picture(grey()))


def _float_kinds() -> Iterator[Kind]:
    for bits in (16, 32, 64):
        kind = f"f{bits // 8}"
        yield _of(f"float grey {bits}", grey().astype(kind)[..., None], bits, BLACK_IS_ZERO, picture(grey()))
        yield _of(f"float RGB {bits}", colours().astype(kind), bits, RGB, picture(colours()))
    yield _of("float grey 32 to 255", (grey() * 255).astype("f4")[..., None], 32, BLACK_IS_ZERO, picture(grey()))
    wide = (grey() * 3000 - 1000).astype("f4")[..., None]
    yield _of("float grey 32 from -1000 to 2000", wide, 32, BLACK_IS_ZERO, picture(grey()))
    inverted = (1 - grey()).astype("f4")[..., None]
    yield _of("float white-is-zero 32", inverted, 32, WHITE_IS_ZERO, picture(grey()))
    alpha = np.dstack((colours(), opacity())).astype("f4")
    truth = picture(colours(), opacity())
    yield _of("float RGBA 32", alpha, 32, RGB, truth, extra=_UNASSOCIATED)


def _palette_kinds() -> Iterator[Kind]:
    for bits in (1, 2, 4, 8):
        table, index = indexed(bits)
        truth, samples = picture(table[index]), index[..., None]
        for name, white in (("", 65535), (" with a map of 8 bits", 255)):
            colour_map = tuple(np.rint(table.T * white).astype(int).ravel().tolist())
            yield _of(f"palette {bits}{name}", samples, bits, PALETTE, truth, tags={_COLOUR_MAP: colour_map})


def _colour_kinds() -> Iterator[Kind]:
    for bits, size in ((2, ODD), (4, ODD), (8, ODD), (8, EVEN), (12, EVEN), (16, ODD), (32, ODD), (64, EVEN)):
        values = stepped(colours(size), bits) if bits < 8 else colours(size)
        name = f"RGB {bits}" + (" even" if size == EVEN and bits == 8 else "")
        yield _of(name, _unsigned(values, bits), bits, RGB, picture(values))
    signed = (levels(colours(), 16).astype(np.int64) - 2**15).astype("i2")
    yield _of("signed RGB 16", signed, 16, RGB, picture(colours()))
    for bits in (8, 16):
        spare = _unsigned(np.dstack((colours(), 1 - grey())), bits)
        yield _of(f"RGB and a channel of no meaning {bits}", spare, bits, RGB, picture(colours()), extra=_UNSPECIFIED)
    yield _of("YCbCr 8", _ycc(colours()), 8, YCBCR, picture(colours()), tags={_SUBSAMPLING: (1, 1)})


def _ycc(values: Values) -> Samples:
    """The YCbCr of JPEG and TIFF, from the luma of ITU-R BT.601."""
    luma = values @ np.array((0.299, 0.587, 0.114))
    blue, red = (values[..., 2] - luma) / 1.772 + 128 / 255, (values[..., 0] - luma) / 1.402 + 128 / 255
    return np.rint(np.clip(np.dstack((luma, blue, red)), 0, 1) * 255).astype(np.uint8)


def _alpha_kinds() -> Iterator[Kind]:
    alpha = opacity()
    for bits in (8, 16):
        for name, values, photometric in (("RGBA", colours(), RGB), ("grey and alpha", grey(), BLACK_IS_ZERO)):
            truth = picture(values, alpha)
            apart = _unsigned(np.dstack((values, alpha)), bits)
            yield _of(f"{name} {bits}", apart, bits, photometric, truth, extra=_UNASSOCIATED)
            scaled = values * (alpha[..., None] if values.ndim == 3 else alpha)
            mixed = _unsigned(np.dstack((scaled, alpha)), bits)
            yield _of(f"{name} {bits} associated", mixed, bits, photometric, truth, extra=_ASSOCIATED)


def _ink_kinds() -> Iterator[Kind]:
    rgb = colours()
    black = 1 - rgb.max(axis=2)
    inks = (1 - rgb - black[..., None]) / np.maximum(1 - black, 1e-9)[..., None]
    cmyk = np.dstack((inks, black))
    for bits in (8, 16):
        yield _of(f"CMYK {bits}", _unsigned(cmyk, bits), bits, SEPARATED, picture(rgb), tags={332: (1,)})
        both = _unsigned(np.dstack((cmyk, opacity())), bits)
        truth = picture(rgb, opacity())
        yield _of(f"CMYKA {bits}", both, bits, SEPARATED, truth, tags={332: (1,)}, extra=_UNASSOCIATED)


def _lab_kinds() -> Iterator[Kind]:
    """CIE L*a*b* with the white of D50 (TIFF 6.0 section 23, and the ICC variant of Technical Note 4)."""
    lab = _lab(0.1 + 0.8 * colours())  # at the edge of sRGB, a step of 8 bits in Lab is many steps in RGB
    for bits, step in ((8, 1), (16, 256)):
        scale = np.array(((2**bits - 1) / 100, step, step))
        signed = np.rint(lab * scale).astype(np.int64)
        truth = picture(_rgb(signed / scale))
        samples = (signed % 2**bits).astype(f"u{bits // 8}")
        yield _of(f"CIELAB {bits}", samples, bits, CIELAB, truth)
        shifted = signed + np.array((0, 128 * step, 128 * step))
        yield _of(f"ICCLAB {bits}", shifted.astype(samples.dtype), bits, ICCLAB, truth)
    alone = lab * np.array((1, 0, 0))
    lightness = np.rint(alone[..., :1] * 2.55).astype(np.uint8)
    yield _of("CIELAB 8 with lightness alone", lightness, 8, CIELAB, picture(_rgb(alone)))


def _lab(rgb: Values) -> Values:
    """L* from 0 to 100, a* and b*."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    ratio = linear @ np.array(_TO_XYZ_D50).T / np.array(_D50)
    f = np.where(ratio > 216 / 24389, np.cbrt(ratio), (24389 / 27 * ratio + 16) / 116)
    return np.dstack((116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])))


def _rgb(lab: Values) -> Values:
    """The inverse of `_lab`."""
    shade = (lab[..., 0] + 16) / 116
    f = np.dstack((shade + lab[..., 1] / 500, shade, shade - lab[..., 2] / 200))
    ratio = np.where(f**3 > 216 / 24389, f**3, (116 * f - 16) * 27 / 24389)
    linear = np.clip(ratio * np.array(_D50) @ np.linalg.inv(np.array(_TO_XYZ_D50)).T, 0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def _of(
    name: str,
    samples: Samples,
    bits: int,
    photometric: int,
    truth: Picture,
    *,
    tags: Tags | None = None,
    extra: int | None = None,
) -> Kind:
    tags = {_PHOTOMETRIC: (photometric,)} | (tags or {}) | ({} if extra is None else {_EXTRA: (extra,)})
    return Kind(name=name, samples=samples, bits=bits, tags=tags, truth=truth)


def _bilevel_cases() -> Cases:
    values = stepped(grey(), 1)
    for compression, photometric, fill, order in itertools.product(BILEVEL, (0, 1), (1, 2), "<>"):
        name = ("white-is-zero 1", "grey 1")[photometric]
        stored = values if photometric else 1 - values
        kind = _of(name, _unsigned(stored, 1), 1, photometric, picture(values))
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
            kind = _of(
                f"{'RGB' if values.ndim == 3 else 'grey'} {bits}, orientation {orientation}",
                laid(_unsigned(stored, bits), orientation),
                bits,
                photometric,
                picture(values),
                tags={_ORIENTATION: (orientation,)},
            )
            for compression in ("none", "LZW"):
                yield _case(kind, Layout(order=order, compression=compression))


def _subsampled_cases() -> Cases:
    """Uncompressed YCbCr: a data unit has the luma of a block, then its Cb and Cr (TIFF 6.0 section 21)."""
    for (across, down), order, compression in itertools.product(
        ((2, 1), (1, 2), (2, 2), (4, 1), (4, 2)), "<>", ("none", "LZW", "Adobe Deflate")
    ):
        size = EVEN
        samples = _ycc(colours(size))
        layout = Layout(order=order, compression=compression)
        strips = [_units(samples[top : top + 64], across, down) for top in range(0, size[1], 64)]
        tags = {_PHOTOMETRIC: (YCBCR,), _SUBSAMPLING: (across, down), _POSITION: (1,)}
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
    whole: dict[str, Any] = {"RGB 8": (rgb, RGB), "YCbCr 8": (rgb, YCBCR)}
    whole["grey 8"] = (np.rint(grey() * 255).astype(np.uint8)[..., None], BLACK_IS_ZERO)
    for (name, (samples, photometric)), order, tiled in itertools.product(whole.items(), "<>", (False, True)):
        tags = {_SUBSAMPLING: (1, 1)} if photometric == YCBCR else {}
        truth = picture(colours() if samples.shape[2] == 3 else grey())
        kind = _of(name, samples, 8, photometric, truth, tags=tags)
        for compression in ("JPEG", "WebP") if name == "RGB 8" else ("JPEG",):
            yield _case(kind, Layout(order=order, tiled=tiled, compression=compression))
