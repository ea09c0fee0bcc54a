"""Reads from the tags of a TIFF how its samples are stored, and refuses by name what is not known."""

from typing import NamedTuple

from PIL.TiffImagePlugin import (
    BITSPERSAMPLE,
    COMPRESSION,
    EXTRASAMPLES,
    ICCPROFILE,
    IMAGELENGTH,
    IMAGEWIDTH,
    PHOTOMETRIC_INTERPRETATION,
    PLANAR_CONFIGURATION,
    SAMPLEFORMAT,
    SAMPLESPERPIXEL,
    ImageFileDirectory_v2,
)

from vlmbatch.errors import ImageError
from vlmbatch.imaging.colours.deep_samples import Kind, no_data_of

_INK_SET = 332
_CMYK = 1
JPEG, WEBP = 7, 50001  # values of Compression
PLANAR = 2  # of PlanarConfiguration: each channel is stored apart
_ASSOCIATED, _UNASSOCIATED = 1, 2  # values of ExtraSamples: alpha, already multiplied or not
_MOST_BITS = 64

_COMPRESSIONS = frozenset((1, 5, JPEG, 8, 32773, 32946, 34925, 50000, WEBP))
_KINDS: dict[int, Kind] = {1: "unsigned", 2: "signed", 3: "float", 4: "unsigned"}
"""By SampleFormat (TIFF 6.0 section 19); 4 is undefined."""

_COLOURS = {0: "L", 1: "L", 2: "RGB", 3: "P", 5: "CMYK", 6: "YCbCr", 8: "LAB", 9: "LAB"}
"""The colours that are converted, by PhotometricInterpretation (TIFF 6.0 sections 3 to 6, 16, 20 to 23)."""
_OTHER_COLOURS = {
    4: "a mask",
    5: "other inks than those of CMYK",
    10: "ITULAB colours",
    32803: "the raw data of a camera's sensor",
    32844: "LogL brightness",
    32845: "LogLuv colours",
    34892: "the raw data of a camera",
}


class Layout(NamedTuple):
    """How the samples of a picture are stored.

    `colours` is the mode of Pillow whose channels they are. `alpha` is the number of the channel of
    transparency, None without; `premultiplied`: the colours are already multiplied by it. `profiled`: an ICC
    profile says how the colours look. `no_data` is the value of samples of which nothing is known.
    """

    size: tuple[int, int]
    photometric: int
    colours: str
    kind: Kind
    bits: int
    samples: int
    planar: bool
    compression: int
    alpha: int | None
    premultiplied: bool
    profiled: bool
    no_data: float | None

    @property
    def lightens_inks(self) -> bool:
        """Whether transparency makes inks lighter, since they are converted to RGB only later."""
        return self.alpha is not None and self.colours == "CMYK" and (self.premultiplied or self.profiled)

    @property
    def channels(self) -> int:
        """The number of channels without transparency and without ones that mean nothing."""
        return 1 if self.colours == "P" else len(self.colours.replace("YCbCr", "YCC"))

    @property
    def described(self) -> str:
        """The kind of picture, for a message."""
        colours = {"L": "grey", "P": "palette"}.get(self.colours, self.colours)
        return f"{colours}, {self.samples} x {self.bits} bits, {self.kind}"


def layout_of(tags: ImageFileDirectory_v2) -> Layout:
    """The layout of the picture that these tags describe.

    Raises:
        ImageError: bad_image, no picture is described, or one that cannot be converted.
    """
    size = (int(tags.get(IMAGEWIDTH, 0)), int(tags.get(IMAGELENGTH, 0)))
    if min(size) < 1:
        raise ImageError("the TIFF cannot be opened: its first page is broken; get a whole copy")
    samples = int(tags.get(SAMPLESPERPIXEL, 1))
    bits, kind = _samples_of(tags, samples)
    photometric = int(tags.get(PHOTOMETRIC_INTERPRETATION, 0))
    compression = int(tags.get(COMPRESSION, 1))
    if photometric not in _COLOURS or (photometric == 5 and tags.get(_INK_SET, _CMYK) != _CMYK):
        name = _OTHER_COLOURS.get(photometric, f"colours of kind {photometric}")
        raise ImageError(f"the TIFF holds {name}, which cannot be shown; convert it to RGB first")
    if compression not in _COMPRESSIONS:
        raise ImageError(f"the TIFF has the unknown compression {compression}; save it with LZW first")
    extra = tuple(tags.get(EXTRASAMPLES, ()))
    colours = _COLOURS[photometric]
    found = Layout(
        size=size,
        photometric=photometric,
        colours=colours,
        kind=kind,
        bits=bits,
        samples=samples,
        planar=tags.get(PLANAR_CONFIGURATION) == PLANAR,
        compression=compression,
        alpha=None,
        premultiplied=extra[:1] == (_ASSOCIATED,),
        profiled=bool(tags.get(ICCPROFILE)),
        no_data=no_data_of(tags),
    )
    if samples < found.channels:
        raise ImageError(f"the TIFF is broken: its number of channels, {samples}, is too small for {colours}")
    if not extra and colours == "RGB" and samples == 4:  # many writers forget to say it
        extra = (_UNASSOCIATED,)
    is_alpha = extra[:1] in ((_ASSOCIATED,), (_UNASSOCIATED,)) and samples > found.channels
    return found._replace(alpha=found.channels) if is_alpha else found


def _samples_of(tags: ImageFileDirectory_v2, samples: int) -> tuple[int, Kind]:
    """Bits and kind of a sample; they must be the same in all channels."""
    listed = tags.get(BITSPERSAMPLE, (1,))
    if 1 < len(listed) < samples:
        raise ImageError(f"the TIFF is broken: it has {samples} channels, but describes {len(listed)}")
    bits, formats = set(listed[:samples]), set(tags.get(SAMPLEFORMAT, (1,))[:samples])
    if len(bits) != 1 or len(formats) != 1:
        raise ImageError("the channels of the TIFF have different types; convert it to RGB of 8 bits first")
    (size,), (number,) = bits, formats
    if number not in _KINDS:
        raise ImageError(f"the TIFF has pixel values of an unusual format ({number}); convert it first")
    if not 1 <= size <= _MOST_BITS:
        raise ImageError(
            f"the TIFF has pixel values of {size} bits, which cannot be decoded; convert it first"
        )
    return size, _KINDS[number]
