"""Counts the frames of a GIF by its blocks, without decoding one; Pillow would read all of them."""

MOST_BLOCKS = 500_000
"""No more blocks are read: a file of 100 MB may have fifty million tiny ones."""

_HEADER = 13  # bytes: signature and screen, before a table of colours
_EXTENSION, _IMAGE = 0x21, 0x2C
_IMAGE_HEADER = 10  # bytes, before a table of colours and the size of its codes


def count_frames(data: bytes, most: int) -> int:
    """The number of frames, from 1 to `most`; frames after a broken block or MOST_BLOCKS do not count."""
    frames, blocks = 0, 0
    try:
        at = _HEADER + _table(data[10])
        while frames < most and data[at] in (_EXTENSION, _IMAGE):
            if data[at] == _IMAGE:
                frames += 1
                at += _IMAGE_HEADER + _table(data[at + 9]) + 1
            else:
                at += 2
            while size := data[at]:  # blocks of up to 255 bytes, the last one has none
                at += size + 1
                blocks += 1
                if blocks > MOST_BLOCKS:
                    return max(frames, 1)
            at += 1
    except IndexError:  # the file ends here
        pass
    return max(frames, 1)


def _table(flags: int) -> int:
    """The bytes of the table of colours that these flags announce."""
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0
