"""Recognises image files by name and first bytes, without an image library, so that listing is quick."""

# fmt: off
IMAGE_EXTENSIONS = frozenset((
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff",
    ".avif", ".heic", ".heif", ".mpo",
))
"""Lower-case endings of the files that are treated as images."""

NON_IMAGE_EXTENSIONS = frozenset((
    # camera raw is TIFF or ISO media inside, and decodes to a sensor's mosaic or a tiny preview
    ".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".fff", ".iiq", ".k25", ".kdc",
    ".mef", ".mos", ".mrw", ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2",
    ".srf", ".srw", ".x3f",
    # video is ISO media, like AVIF and HEIC
    ".3g2", ".3gp", ".avi", ".m4a", ".m4v", ".mkv", ".mov", ".mp4", ".webm",
    # microscope slides and maps of gigapixels, in TIFF
    ".lsm", ".ndpi", ".svs",
))
"""Lower-case endings of files that are not images but begin with the same bytes."""
# fmt: on

HEAD_BYTES = 64
"""The number of first bytes that identify a format."""

# major or compatible brands of an ISO media file: AVIF 1.2 section 6, ISO/IEC 23008-12 annex B.4 and E
_AVIF_BRANDS = frozenset((b"avif", b"avis"))
_HEIC_BRANDS = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"))
_ANY_CODEC_BRANDS = frozenset((b"mif1", b"msf1", b"miaf"))

# sizes of the known BMP information headers; "BM" alone also begins ordinary text
_BMP_HEADERS = frozenset((12, 16, 40, 52, 56, 64, 108, 124))

_SIGNATURES = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
    (b"II+\x00", "TIFF"),  # BigTIFF
    (b"MM\x00+", "TIFF"),
)

_JPEG_XL = "JPEG XL; make a PNG of it first: djxl FILE.jxl FILE.png"
_JPEG_2000 = "JPEG 2000; make a PNG of it first: magick FILE.jp2 FILE.png"

_OTHER_KINDS = (
    (b"%PDF", "a PDF; make pictures of its pages first: pdftoppm -r 150 -png FILE.pdf page"),
    (b"%!PS", "PostScript"),
    (b"PK\x03\x04", "a ZIP archive; unpack it first: unzip FILE.zip -d FOLDER"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"8BPS", "a Photoshop file"),
    (b"\x00\x00\x00\x0cjP  ", _JPEG_2000),
    (b"\xff\x4f\xff\x51", _JPEG_2000),
    (b"\x00\x00\x00\x0cJXL ", _JPEG_XL),
    (b"\xff\x0a", _JPEG_XL),
    (b"version https://git-lfs", "a Git LFS pointer; run: git lfs pull"),
    (b"\x1aE\xdf\xa3", "a video"),
)


def sniff(head: bytes) -> str | None:
    """The image format of a file by its first 64 bytes, as Pillow names it; None for any other file."""
    for signature, name in _SIGNATURES:
        if head.startswith(signature):
            return None if _is_camera_raw(head) else name
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADERS:
        return "BMP"
    return _iso_media_format(head)


def looks_like_image(head: bytes) -> bool:
    """Whether a file with these first 64 bytes has a format that vlmbatch opens."""
    return sniff(head) is not None


def describe(head: bytes) -> str:
    """The likely type of a file that is not an image, for a message: "HTML", "a PDF", "text"."""
    for signature, name in _OTHER_KINDS:
        if head.startswith(signature):
            return name
    if head[4:8] == b"ftyp":
        return "a video"
    if _is_camera_raw(head):
        return "a camera raw file"
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if b"<svg" in start:
        return "SVG"
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return "HTML"
    if start.startswith(b"<"):
        return "XML or HTML"
    if not start.strip(b"\x00"):
        return "a block of zeros or blanks"
    return "text" if _is_text(head) else f"no known format (first bytes {head[:8].hex(' ')})"


def _is_camera_raw(head: bytes) -> bool:
    """Canon's CR2 has a mark behind its TIFF header; Olympus and Panasonic change the TIFF number."""
    is_cr2 = head[:4] == b"II*\x00" and head[8:10] == b"CR"
    return is_cr2 or head[:4] in (b"IIRO", b"IIRS", b"MMOR", b"IIU\x00")


def _iso_media_format(head: bytes) -> str | None:
    """AVIF or HEIF by exact brands, since MP4 and QuickTime films begin with the same box; else None."""
    if head[4:8] != b"ftyp":
        return None
    box = head[: int.from_bytes(head[:4], "big")]
    major = box[8:12]
    compatible = {box[i : i + 4] for i in range(16, len(box) - 3, 4)}
    brands = compatible if major in _ANY_CODEC_BRANDS else {major}
    if brands & _AVIF_BRANDS:
        return "AVIF"
    if brands & _HEIC_BRANDS or major in _ANY_CODEC_BRANDS:
        return "HEIF"
    return None


def _is_text(head: bytes) -> bool:
    return all(byte >= 32 or byte in b"\t\n\r\f" for byte in head)
