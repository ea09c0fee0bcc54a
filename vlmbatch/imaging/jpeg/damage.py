"""Finds JPEGs of which a part was lost and is now zeros, or FF as in erased flash memory.

libjpeg decodes such data without an error, and Pillow does not pass on its warnings. A run of zeros may also
be sound, since the code for an empty block may consist of zeros: its tables tell what the run means, and a
probe tells whether the scan ends where its data does.
"""

import math
import re
from contextlib import suppress

from vlmbatch.errors import ImageError
from vlmbatch.imaging.jpeg.probe import Probe
from vlmbatch.imaging.jpeg.scans import Scan, scans
from vlmbatch.imaging.jpeg.structure import END_MARK, JpegStructure
from vlmbatch.protocols import Room

_RUN = 256
"""Bytes of a run that is looked at; what a disk or a flash memory loses has 512 or more."""
_RUNS = (bytes(_RUN), b"\xff" * _RUN)
_WHOLE_RUNS = re.compile(rb"\x00{%d,}|\xff{%d,}" % (_RUN, _RUN))
_RESTARTS = re.compile(rb"\xff[\xd0-\xd7]")
_MOST_DIFFERENCE = 2047  # of two DC coefficients (T.81 table F.1)
_MOST_EQUAL = 2  # coefficients of a pattern that are the same in all blocks
_MOST_REFINED = 4000  # bits without a code; libjpeg writes a code at least every 1,000 (its MAX_CORR_BITS)
_END_OF_BLOCK = 0x00  # a symbol for AC coefficients (T.81 F.1.2.2)
_ZERO_RUN = 15  # the run of a symbol for 16 zeros; shorter ones of size 0 end a band
_MOST_PROBES = 2  # scans of a file that are probed
_SLACK = 8  # units: a run may begin in one that is not empty


def check_damage(data: bytes, structure: JpegStructure, room: Room, warnings: list[str]) -> None:
    """Refuse a JPEG that lacks its end mark, or a part of its data, which is now zeros or FF.

    If scans are missing, the picture is coarse, and there is a warning. The picture is decoded only if
    there is such a run.

    Raises:
        ImageError: bad_image.
    """
    if not structure.whole:
        raise ImageError("the JPEG is truncated: its end mark is missing; get a whole copy")
    if structure.is_coarse:
        warnings.append(
            "scans of the JPEG are missing, so its picture is coarse; perhaps it was cut: get a whole copy"
        )
    found = [at for run in _RUNS if (at := data.find(run, structure.coded)) >= 0]
    # the end mark cannot stand in coded data, so such a run is behind the picture
    if not structure.coded or not found or data.rfind(END_MARK, structure.coded, min(found)) >= 0:
        return
    with suppress(IndexError, KeyError, ValueError, ZeroDivisionError):  # the decoder refuses such headers
        _check_scans(data, structure, room)


def _check_scans(data: bytes, structure: JpegStructure, room: Room) -> None:
    probes = 0
    for scan in scans(data):
        runs = [found.span() for found in _WHOLE_RUNS.finditer(data, scan.start, scan.stop + 1)]
        if not runs or probes == _MOST_PROBES:
            continue
        senseless = _impossible_run(data, scan, runs)
        probe = Probe(data, scan, structure, room)
        probes += 1
        if not scan.is_raw and not probe.uses(runs[0][0]):  # padding behind the blocks
            continue
        if senseless or structure.is_coarse or not _ends_there(data, scan, probe):
            raise _damaged(data, *(senseless or runs[0]))


def _ends_there(data: bytes, scan: Scan, probe: Probe) -> bool:
    """Whether a scan has as many restarts and blocks as its picture, so far as that can be seen."""
    if scan.interval:
        restarts = len(_RESTARTS.findall(data, scan.start, scan.stop))
        return restarts == (scan.units - 1) // scan.interval and (scan.is_raw or not probe.needs_more())
    if scan.is_raw:
        size = scan.stop - scan.start - data.count(b"\xff\x00", scan.start, scan.stop)
        return abs(size - scan.units * scan.blocks // 8) <= 1  # a bit for each block
    return not probe.needs_more() and probe.uses(max(scan.stop - _RUN, scan.start))


def _damaged(data: bytes, start: int, stop: int) -> ImageError:
    what = "zeros" if data[start] == 0 else "FF"
    text = f"{stop - start:,} bytes of its picture data were lost and are now {what}; get a whole copy"
    return ImageError(f"the JPEG is damaged: {text}")


def _impossible_run(data: bytes, scan: Scan, runs: list[tuple[int, int]]) -> tuple[int, int] | None:
    """The first run that no picture can have."""
    most = _longest_run_of_zeros(scan) / 8 + 2  # bytes; two may belong to other codes in part
    for start, stop in runs:
        # FF before FF is a fill byte, which stands before a marker only
        if stop - start > most if data[start] == 0 else data[stop : stop + 1] == b"\x00":
            return start, stop
    return None


def _longest_run_of_zeros(scan: Scan) -> float:
    """The most bits of zeros that may follow each other in the coded data of this scan."""
    units = min(scan.units, scan.interval or scan.units) + _SLACK
    if not scan.frame.is_progressive:
        return _most_in_blocks(scan, units)
    if scan.first == 0:
        return units * scan.blocks if scan.high else _most_of_dc(scan, units)
    return _most_of_refinement(scan, units) if scan.high else _most_of_ac(scan, units)


def _most_in_blocks(scan: Scan, units: int) -> float:
    """The same for whole blocks: they must be empty, or coefficients would be -1 without end."""
    tables = [part.ac for part in scan.components]
    if None in tables:
        return math.inf
    if any(table.symbols[0] != _END_OF_BLOCK for table in tables if table):
        return 0
    return _most_of_dc(scan, units, sum(part.blocks * part.ac.length for part in scan.components if part.ac))


def _most_of_dc(scan: Scan, units: int, more_bits: int = 0) -> float:
    """The same for DC coefficients: equal to the one before, or falling until a row or the range ends."""
    bits = more_bits
    for part in scan.components:
        if part.dc is None:
            return math.inf
        category = part.dc.symbols[0]
        bits += part.blocks * (part.dc.length + category)
        if category:
            units = min(units, scan.across, _MOST_DIFFERENCE // (part.blocks * (2**category - 1)) + _SLACK)
    return units * bits


def _most_of_ac(scan: Scan, units: int) -> float:
    """The same for AC coefficients in a progressive scan (T.81 G.1.2.2)."""
    table = scan.components[0].ac
    if table is None:
        return math.inf
    run, size = divmod(table.symbols[0], 16)
    bits, band = table.length + run, scan.last - scan.first + 1
    if size == 0 and run < _ZERO_RUN:  # an end of band for 2^run blocks
        could_be_longer = any(symbol & 15 == 0 and run < symbol >> 4 < _ZERO_RUN for symbol in table.symbols)
        return bits if could_be_longer else units * bits / 2**run + bits
    each, rest = divmod(band, run + 1)
    is_pattern = rest == 0 and each <= _MOST_EQUAL
    return units * each * (table.length + size) if is_pattern else 0


def _most_of_refinement(scan: Scan, units: int) -> float:
    """The same for AC coefficients that came before, a bit for each, and for new ones (T.81 G.1.2.3)."""
    table = scan.components[0].ac
    is_new = table is not None and table.symbols[0] & 15
    return _MOST_REFINED if is_new else units * (scan.last - scan.first + 32)
