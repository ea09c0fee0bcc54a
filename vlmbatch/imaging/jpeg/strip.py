"""Extracts the picture of a JPEG file without decoding it, and leaves out metadata and everything else."""

from dataclasses import dataclass

from vlmbatch.imaging.jpeg.structure import END_OF_IMAGE, NO_SEGMENT, START_OF_SCAN, Segment, segments

# markers of ITU-T T.81 table B.1; of the frames only the three kinds that every decoder supports
_TABLES = frozenset((0xC4, 0xDB, 0xDD))  # DHT, DQT, DRI
_FRAMES = frozenset((0xC0, 0xC1, 0xC2))
_APP0, _APP2, _APP14, _LAST_APP, _COMMENT = 0xE0, 0xE2, 0xEE, 0xEF, 0xFE

_JFIF, _JFIF_BYTES = b"JFIF\x00", 14  # JFIF 1.02; more bytes hold a thumbnail
_JFIF_EXTENSION = b"JFXX\x00"  # a thumbnail
_ADOBE, _ADOBE_BYTES = b"Adobe", 12  # says how colours are coded
_MULTI_PICTURE = b"MPF\x00"  # CIPA DC-007

_SAMPLINGS = frozenset((0x11, 0x12, 0x21, 0x22, 0x41))
"""Luma samples, across and down, for each colour sample, in files that every decoder reads."""
_ONE_SAMPLE = 0x11
_FRAME_BYTES = 19  # marker and header of a frame of three colours
_LOW = b"\x00\x08"  # the height of `Bared.frame`
_FRAME = 0xC0  # stands for all kinds of frame; a picture has one


@dataclass(frozen=True, slots=True)
class Bared:
    """A JPEG that contains a picture and nothing else.

    `frame` is the same without the coded data of its scans, and with a declared height of 8 pixels: a decoder
    reads every header and every table of the file from it, and fills the missing data with grey.
    """

    data: bytes
    frame: bytes


def bared(data: bytes) -> Bared | None:
    """The picture of a JPEG without metadata, thumbnails and bytes behind its end mark; its coding is kept.

    It decodes to exactly the same pixels. Returns None if anything is unusual: an unknown segment, stray
    bytes, an impossible length, a second picture, a frame of other than three colours of 8 bits. If the file
    contains nothing but its picture, `data` is the file itself and not a copy.
    """
    view, kept, headers, seen = memoryview(data), list[memoryview](), [data[:2]], set[int]()
    since, at, last, before = 0, 2, NO_SEGMENT, NO_SEGMENT
    for segment in segments(data):
        keeps = _keeps(data, segment, seen)
        if keeps is None:
            return None
        if keeps:
            before, last = last, segment.marker
            headers.append(_header(data, segment))
        else:
            kept.append(view[since : segment.start])
            since = segment.stop
        at = segment.stop
    if last != END_OF_IMAGE or before != START_OF_SCAN:  # tables behind the last scan have no use
        return None
    kept.append(view[since:at])
    alone = data if len(kept) == 1 and at == len(data) else b"".join(kept)
    return Bared(alone, b"".join(headers))


def _keeps(data: bytes, segment: Segment, seen: set[int]) -> bool | None:
    """Whether the picture needs this segment; None if unknown. `seen` records segments that come once."""
    marker = segment.marker
    if marker in _TABLES or marker in (START_OF_SCAN, END_OF_IMAGE):
        return True
    if marker in _FRAMES:
        return True if _is_usual(data, segment) and _is_first(_FRAME, seen) else None
    if marker in (_APP0, _APP14):
        return _keeps_colours(data[segment.start + 4 : segment.stop], marker, seen)
    if marker == _APP2 and data.startswith(_MULTI_PICTURE, segment.start + 4):
        return None
    return False if _APP0 < marker <= _LAST_APP or marker == _COMMENT else None


def _keeps_colours(payload: bytes, marker: int, seen: set[int]) -> bool | None:
    """The same for the two segments that say how colours are coded."""
    if marker == _APP0 and payload.startswith(_JFIF_EXTENSION):
        return False
    head, size = (_JFIF, _JFIF_BYTES) if marker == _APP0 else (_ADOBE, _ADOBE_BYTES)
    return True if payload.startswith(head) and len(payload) == size and _is_first(marker, seen) else None


def _is_usual(data: bytes, frame: Segment) -> bool:
    """Whether a frame has three colours of 8 bits, in a sampling that every decoder supports (T.81 B.2.2)."""
    header = data[frame.start : frame.stop]
    return (
        len(header) == _FRAME_BYTES
        and header[4] == 8
        and header[9] == 3
        and header[11] in _SAMPLINGS
        and header[14] == header[17] == _ONE_SAMPLE
    )


def _header(data: bytes, segment: Segment) -> bytes:
    header = data[segment.start : segment.stop]
    return header[:5] + _LOW + header[7:] if segment.marker in _FRAMES else header


def _is_first(kind: int, seen: set[int]) -> bool:
    """Whether this is the first segment of its kind."""
    if kind in seen:
        return False
    seen.add(kind)
    return True
