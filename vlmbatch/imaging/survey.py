"""Reads the structure of a file from its bytes, before a decoder opens it."""

from dataclasses import dataclass

from vlmbatch.imaging.formats import HEAD_BYTES, sniff
from vlmbatch.imaging.heif import structure as heif_structure
from vlmbatch.imaging.heif.structure import HeifStructure
from vlmbatch.imaging.jpeg import structure as jpeg_structure
from vlmbatch.imaging.jpeg.structure import JpegStructure
from vlmbatch.imaging.tiff import structure as tiff_structure
from vlmbatch.imaging.tiff.opening import BIG_AND_BIG_ENDIAN
from vlmbatch.imaging.tiff.rewrite import single_page
from vlmbatch.imaging.tiff.structure import TiffStructure


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """The bytes to decode, and the structure of the format that they have.

    `data` are the bytes of the file; or of a TIFF, if Pillow would read another page or none, a copy with one
    page. `copied` is the size of that copy, else 0.
    """

    data: bytes
    copied: int = 0
    jpeg: JpegStructure | None = None
    tiff: TiffStructure | None = None
    heif: HeifStructure | None = None
    """For AVIF, too."""


def survey(data: bytes) -> Survey:
    """The structure of a file; none if its format is unknown.

    Raises:
        ImageError: bad_image, the structure is hostile.
    """
    match sniff(data[:HEAD_BYTES]):
        case "JPEG":
            return Survey(data=data, jpeg=jpeg_structure.survey(data))
        case "TIFF":
            pages = tiff_structure.survey(data)
            if pages.at is None and not data.startswith(BIG_AND_BIG_ENDIAN):
                return Survey(data=data, tiff=pages)
            picture = single_page(data, pages.at)
            return Survey(data=picture, copied=len(picture), tiff=pages)
        case "AVIF" | "HEIF":
            return Survey(data=data, heif=heif_structure.survey(data))
        case _:
            return Survey(data=data)
