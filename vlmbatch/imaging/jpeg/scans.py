"""Reads the headers of a JPEG that say what the bits of its coded data mean (ITU-T T.81)."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from vlmbatch.imaging.jpeg.structure import (
    PROGRESSIVE_FRAME,
    SEQUENTIAL_FRAMES,
    START_OF_SCAN,
    Segment,
    segments,
)

_HUFFMAN_TABLES, _RESTART_INTERVAL = 0xC4, 0xDD
_AC_TABLES = 0x10  # added to the number of a table for AC coefficients


class HuffmanTable(NamedTuple):
    """The symbols of a Huffman table; the code of the first one is `length` zeros (T.81 C.2)."""

    length: int
    symbols: bytes


class Component(NamedTuple):
    """A colour in a scan: its number of blocks in one unit, and its tables, None if the file lacks them."""

    number: int
    blocks: int
    dc: HuffmanTable | None
    ac: HuffmanTable | None


class Frame(NamedTuple):
    """The frame header (T.81 B.2.2); `samplings` has the factors, across and down, of each component."""

    is_progressive: bool
    width: int
    height: int
    samplings: dict[int, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Scan:
    """A scan whose coded data is `data[start:stop]`, in units (MCUs, T.81 A.2) of which a row has `across`.

    It codes the coefficients `first` to `last` of each block, down to bit `low`. If `high` is not 0, it
    refines coefficients that have come before. `interval` is the number of units between restarts, or 0.
    """

    frame: Frame
    components: tuple[Component, ...]
    first: int
    last: int
    high: int
    low: int
    units: int
    across: int
    interval: int
    start: int
    stop: int

    @property
    def blocks(self) -> int:
        """The number of blocks in one unit."""
        return sum(component.blocks for component in self.components)

    @property
    def is_raw(self) -> bool:
        """Whether it has no codes, but one bit for each block: it refines DC coefficients (T.81 G.1.2.1)."""
        return self.frame.is_progressive and self.first == 0 and self.high > 0


@dataclass(slots=True)
class _Headers:
    """The headers so far."""

    frame: Frame | None = None
    tables: dict[int, HuffmanTable] = field(default_factory=dict)
    interval: int = 0

    def read(self, marker: int, payload: bytes) -> None:
        if marker in SEQUENTIAL_FRAMES or marker == PROGRESSIVE_FRAME:
            self.frame = _frame(marker, payload)
        elif marker == _HUFFMAN_TABLES:
            self.tables |= _tables(payload)
        elif marker == _RESTART_INTERVAL:
            self.interval = int.from_bytes(payload[:2], "big")


def scans(data: bytes) -> Iterator[Scan]:
    """Each scan with Huffman codes; none after a frame of another kind.

    Raises:
        ImageError: bad_image, see `segments`.
        IndexError, KeyError, ZeroDivisionError: a header is too short or senseless.
    """
    headers, scan = _Headers(), None
    for segment in segments(data):
        if scan:
            yield replace(scan, stop=segment.start)
        scan = None
        payload = data[segment.start + 4 : segment.stop]
        headers.read(segment.marker, payload)
        if segment.marker == START_OF_SCAN and headers.frame:
            scan = _scan(headers, headers.frame, payload, segment)
    if scan:
        yield replace(scan, stop=len(data))


def _frame(marker: int, payload: bytes) -> Frame:
    height, width = int.from_bytes(payload[1:3], "big"), int.from_bytes(payload[3:5], "big")
    parts = [payload[at : at + 2] for at in range(6, 6 + 3 * payload[5], 3)]
    samplings = {number: (factors >> 4, factors & 15) for number, factors in parts}
    return Frame(marker == PROGRESSIVE_FRAME, width, height, samplings)


def _tables(payload: bytes) -> dict[int, HuffmanTable]:
    tables, at = {}, 0
    while at < len(payload):
        counts = payload[at + 1 : at + 17]
        length = next((bits for bits, count in enumerate(counts, 1) if count), 0)
        stop = at + 17 + sum(counts)
        if length:
            tables[payload[at]] = HuffmanTable(length, payload[at + 17 : stop])
        at = stop
    return tables


def _scan(headers: _Headers, frame: Frame, payload: bytes, segment: Segment) -> Scan:
    count = payload[0]
    chosen = [(payload[at], payload[at + 1]) for at in range(1, 1 + 2 * count, 2)]
    first, last, bits = payload[1 + 2 * count : 4 + 2 * count]
    most_across = max(across for across, _ in frame.samplings.values())
    most_down = max(down for _, down in frame.samplings.values())
    width, height, blocks = frame.width, frame.height, {n: a * d for n, (a, d) in frame.samplings.items()}
    if count == 1:  # its units are its own blocks
        number = chosen[0][0]
        across, down = frame.samplings[number]
        width, height = -(-width * across // most_across), -(-height * down // most_down)
        most_across, most_down, blocks = 1, 1, {number: 1}
    per_row = -(-width // (8 * most_across))
    components = tuple(
        Component(
            number,
            blocks[number],
            headers.tables.get(tables >> 4),
            headers.tables.get(_AC_TABLES | tables & 15),
        )
        for number, tables in chosen
    )
    units = per_row * -(-height // (8 * most_down))
    return Scan(
        frame,
        components,
        first,
        last,
        bits >> 4,
        bits & 15,
        units,
        per_row,
        headers.interval,
        segment.stop,
        0,
    )
