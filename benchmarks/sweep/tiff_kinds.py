"""The kinds of samples in a TIFF, and what they mean (TIFF 6.0)."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from sweep.pictures import (
    EVEN,
    ODD,
    Picture,
    Values,
    colours,
    grey,
    indexed,
    levels,
    muted,
    opacity,
    picture,
    stepped,
)
from sweep.tiff_writer import Samples

Tags = dict[int, tuple[int, ...]]
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, SEPARATED, YCBCR, CIELAB, ICCLAB = 0, 1, 2, 3, 5, 6, 8, 9
PHOTOMETRIC, ORIENTATION, _COLOUR_MAP, _EXTRA, SUBSAMPLING, POSITION = 262, 274, 320, 338, 530, 531
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


def unsigned(values: Values, bits: int) -> Samples:
    kind = next(size for size in (8, 16, 32, 64) if size >= bits)
    whole = levels(values, bits).astype(f"u{kind // 8}")
    return whole[..., None] if whole.ndim == 2 else whole


def _grey_kinds() -> Iterator[Kind]:
    for bits, size in ((1, ODD), (2, ODD), (4, ODD), (8, ODD), (12, EVEN), (16, ODD), (32, ODD), (64, EVEN)):
        values = stepped(grey(size), bits) if bits < 8 else grey(size)
        truth = picture(values)
        yield kind_of(f"grey {bits}", unsigned(values, bits), bits, BLACK_IS_ZERO, truth)
        yield kind_of(f"white-is-zero {bits}", unsigned(1 - values, bits), bits, WHITE_IS_ZERO, truth)
    twelve = levels(grey(), 12).astype(np.uint16)[..., None]
    yield kind_of("grey 16 with a white of 4095", twelve, 16, BLACK_IS_ZERO, picture(grey()))


def _signed_kinds() -> Iterator[Kind]:
    for bits in (8, 16, 32):
        whole = levels(grey(), bits).astype(np.int64) - 2 ** (bits - 1)
        name = f"signed grey {bits} from the least to the greatest"
        yield kind_of(name, whole.astype(f"i{bits // 8}")[..., None], bits, BLACK_IS_ZERO, picture(grey()))
        half = levels(grey(), bits - 1).astype(f"i{bits // 8}")[..., None]
        yield kind_of(f"signed grey {bits} from 0", half, bits, BLACK_IS_ZERO, picture(grey()))
    inverted = levels(1 - grey(), 15).astype("i2")[..., None]
    yield kind_of("signed white-is-zero 16 from 0", inverted, 16, WHITE_IS_ZERO, picture(grey()))


def _float_kinds() -> Iterator[Kind]:
    for bits in (16, 32, 64):
        kind = f"f{bits // 8}"
        yield kind_of(
            f"float grey {bits}", grey().astype(kind)[..., None], bits, BLACK_IS_ZERO, picture(grey())
        )
        yield kind_of(f"float RGB {bits}", colours().astype(kind), bits, RGB, picture(colours()))
    yield kind_of(
        "float grey 32 to 255", (grey() * 255).astype("f4")[..., None], 32, BLACK_IS_ZERO, picture(grey())
    )
    wide = (grey() * 3000 - 1000).astype("f4")[..., None]
    yield kind_of("float grey 32 from -1000 to 2000", wide, 32, BLACK_IS_ZERO, picture(grey()))
    inverted = (1 - grey()).astype("f4")[..., None]
    yield kind_of("float white-is-zero 32", inverted, 32, WHITE_IS_ZERO, picture(grey()))
    alpha = np.dstack((colours(), opacity())).astype("f4")
    truth = picture(colours(), opacity())
    yield kind_of("float RGBA 32", alpha, 32, RGB, truth, extra=_UNASSOCIATED)


def _palette_kinds() -> Iterator[Kind]:
    for bits in (1, 2, 4, 8):
        table, index = indexed(bits)
        truth, samples = picture(table[index]), index[..., None]
        for name, white in (("", 65535), (" with a map of 8 bits", 255)):
            colour_map = tuple(np.rint(table.T * white).astype(int).ravel().tolist())
            yield kind_of(
                f"palette {bits}{name}", samples, bits, PALETTE, truth, tags={_COLOUR_MAP: colour_map}
            )


def _colour_kinds() -> Iterator[Kind]:
    for bits, size in ((2, ODD), (4, ODD), (8, ODD), (8, EVEN), (12, EVEN), (16, ODD), (32, ODD), (64, EVEN)):
        values = stepped(colours(size), bits) if bits < 8 else colours(size)
        name = f"RGB {bits}" + (" even" if size == EVEN and bits == 8 else "")
        yield kind_of(name, unsigned(values, bits), bits, RGB, picture(values))
    signed = (levels(colours(), 16).astype(np.int64) - 2**15).astype("i2")
    yield kind_of("signed RGB 16", signed, 16, RGB, picture(colours()))
    for bits in (8, 16):
        spare = unsigned(np.dstack((colours(), 1 - grey())), bits)
        yield kind_of(
            f"RGB and a channel of no meaning {bits}",
            spare,
            bits,
            RGB,
            picture(colours()),
            extra=_UNSPECIFIED,
        )
    yield kind_of("YCbCr 8", ycc(colours()), 8, YCBCR, picture(colours()), tags={SUBSAMPLING: (1, 1)})


def ycc(values: Values) -> Samples:
    """The YCbCr of JPEG and TIFF, from the luma of ITU-R BT.601."""
    luma = values @ np.array((0.299, 0.587, 0.114))
    blue, red = (values[..., 2] - luma) / 1.772 + 128 / 255, (values[..., 0] - luma) / 1.402 + 128 / 255
    return np.rint(np.clip(np.dstack((luma, blue, red)), 0, 1) * 255).astype(np.uint8)


def _alpha_kinds() -> Iterator[Kind]:
    alpha = opacity()
    for bits in (8, 16):
        for name, values, photometric in (
            ("RGBA", colours(), RGB),
            ("grey and alpha", grey(), BLACK_IS_ZERO),
        ):
            truth = picture(values, alpha)
            apart = unsigned(np.dstack((values, alpha)), bits)
            yield kind_of(f"{name} {bits}", apart, bits, photometric, truth, extra=_UNASSOCIATED)
            scaled = values * (alpha[..., None] if values.ndim == 3 else alpha)
            mixed = unsigned(np.dstack((scaled, alpha)), bits)
            yield kind_of(f"{name} {bits} associated", mixed, bits, photometric, truth, extra=_ASSOCIATED)


def _ink_kinds() -> Iterator[Kind]:
    rgb = colours()
    black = 1 - rgb.max(axis=2)
    inks = (1 - rgb - black[..., None]) / np.maximum(1 - black, 1e-9)[..., None]
    cmyk = np.dstack((inks, black))
    for bits in (8, 16):
        yield kind_of(f"CMYK {bits}", unsigned(cmyk, bits), bits, SEPARATED, picture(rgb), tags={332: (1,)})
        both = unsigned(np.dstack((cmyk, opacity())), bits)
        truth = picture(rgb, opacity())
        yield kind_of(f"CMYKA {bits}", both, bits, SEPARATED, truth, tags={332: (1,)}, extra=_UNASSOCIATED)


def _lab_kinds() -> Iterator[Kind]:
    """CIE L*a*b* with the white of D50 (TIFF 6.0 section 23, and the ICC variant of Technical Note 4)."""
    lab = _lab(muted())
    for bits, step in ((8, 1), (16, 256)):
        scale = np.array(((2**bits - 1) / 100, step, step))
        signed = np.rint(lab * scale).astype(np.int64)
        truth = picture(_rgb(signed / scale))
        samples = (signed % 2**bits).astype(f"u{bits // 8}")
        yield kind_of(f"CIELAB {bits}", samples, bits, CIELAB, truth)
        shifted = signed + np.array((0, 128 * step, 128 * step))
        yield kind_of(f"ICCLAB {bits}", shifted.astype(samples.dtype), bits, ICCLAB, truth)
    alone = lab * np.array((1, 0, 0))
    lightness = np.rint(alone[..., :1] * 2.55).astype(np.uint8)
    yield kind_of("CIELAB 8 with lightness alone", lightness, 8, CIELAB, picture(_rgb(alone)))


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


def kind_of(
    name: str,
    samples: Samples,
    bits: int,
    photometric: int,
    truth: Picture,
    *,
    tags: Tags | None = None,
    extra: int | None = None,
) -> Kind:
    tags = {PHOTOMETRIC: (photometric,)} | (tags or {}) | ({} if extra is None else {_EXTRA: (extra,)})
    return Kind(name=name, samples=samples, bits=bits, tags=tags, truth=truth)
