"""Names the kinds of files that may hold pictures but are not read; a run says how many it left out."""

from pathlib import PurePath

DOCUMENTS = "PDF DJVU DJV EPUB MOBI XPS OXPS PS EPS DOC DOCX PPT PPTX ODT ODP"
ARCHIVES = "ZIP CBZ CBR CB7 CBT RAR 7Z TAR TGZ TBZ2 TXZ GZ BZ2 XZ ZST"
DRAWINGS = "SVG SVGZ AI PSD PSB XCF KRA AFPHOTO INDD CDR EMF WMF"
PICTURES = "JXL JP2 J2K JPF JPX JXR WDP HDR EXR TGA DDS ICO ICNS PCX PPM PGM PBM PNM PAM QOI XBM XPM"
SCIENCE = "DCM DICOM FITS FTS NII SVS NDPI LSM"
CAMERA_RAW = (
    "3FR ARW CR2 CR3 CRW DCR DNG ERF FFF IIQ K25 KDC MEF MOS MRW NEF NRW ORF PEF RAF RAW RW2 RWL SR2 SRF SRW "
    "X3F"
)
FILMS = "3G2 3GP AVI FLV M2TS M4V MKV MOV MP4 MPEG MPG MTS OGV WEBM WMV"
HOLDERS = frozenset(" ".join((DOCUMENTS, ARCHIVES, DRAWINGS, PICTURES, SCIENCE, CAMERA_RAW, FILMS)).split())
"""Endings of files that may hold pictures, in upper case."""

_BEGINNINGS = (
    (b"%PDF", "PDF"),
    (b"%!PS", "PS"),
    (b"PK\x03\x04", "ZIP"),
    (b"Rar!\x1a\x07", "RAR"),
    (b"7z\xbc\xaf\x27\x1c", "7Z"),
    (b"AT&TFORM", "DJVU"),
    (b"8BPS", "PSD"),
    (b"\x00\x00\x00\x0cjP  ", "JP2"),
    (b"\xff\x4f\xff\x51", "JP2"),
    (b"\x00\x00\x00\x0cJXL ", "JXL"),
    (b"\xff\x0a", "JXL"),
)


def unread_kind(path: str, head: bytes = b"") -> str | None:
    """The kind of an ignored file, such as PDF: by its name, else by its first bytes; None for any other."""
    ending = PurePath(path).suffix[1:].upper()
    if ending in HOLDERS:
        return ending
    return next((kind for beginning, kind in _BEGINNINGS if head.startswith(beginning)), None)
