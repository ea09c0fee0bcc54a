"""Finds out which bytes of a scan a JPEG decoder uses: if these bytes change, the pixels change."""

import hashlib
import random

from vlmbatch.errors import ImageError
from vlmbatch.imaging.decode import OutOfMemory, decoding
from vlmbatch.imaging.decode_cost import decode_bytes
from vlmbatch.imaging.jpeg.scans import Scan
from vlmbatch.imaging.jpeg.structure import JpegStructure
from vlmbatch.protocols import Room

_NOISE = random.Random(1).randbytes(4096).replace(b"\xff", b"")
"""Coded data without a marker, which decodes to changing coefficients."""


class Probe:
    """The picture as it is, to compare with changed ones; one scan of it is changed."""

    def __init__(self, data: bytes, scan: Scan, structure: JpegStructure, room: Room) -> None:
        self._data, self._scan, self._structure, self._room = data, scan, structure, room
        # an eighth of the size shows changes of DC coefficients only, half of it those of some AC, too
        self._divisor = 2 if scan.first else 8
        self._whole = self._pixels(data)

    def uses(self, start: int) -> bool:
        """Whether the decoder uses the data from `start` to the end of the scan."""
        size = self._scan.stop - start
        noise = (_NOISE * (size // len(_NOISE) + 1))[:size]
        return self._differs(start, noise)

    def needs_more(self) -> bool:
        """Whether the decoder would use more data behind the scan."""
        return self._differs(self._scan.stop, _NOISE)

    def _differs(self, start: int, instead: bytes) -> bool:
        try:
            changed = self._pixels(self._data[:start] + instead + self._data[self._scan.stop :])
        except OutOfMemory:
            raise
        except ImageError:
            return True
        return changed != self._whole

    def _pixels(self, data: bytes) -> bytes:
        """A digest of the decoded pixels."""
        with decoding(data) as image:
            full = image.size
            image.draft(None, (max(full[0] // self._divisor, 1), max(full[1] // self._divisor, 1)))
            with self._room(decode_bytes(image, full, image.size, self._structure)):
                return hashlib.sha256(image.tobytes()).digest()
