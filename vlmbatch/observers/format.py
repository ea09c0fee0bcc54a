"""Pure functions that format numbers, summaries and foreign text for the user."""

import re
from collections.abc import Mapping

from vlmbatch.records import Summary

SHOWN_KINDS = 6

JOINERS = "\u200c\u200d"

# ECMA-48: CSI sequences, then strings that end with BEL or ST, then two-character sequences
_ESCAPE_SEQUENCE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x90\x98\x9c-\x9f]*(?:\x07|\x1b\\|\x9c)"
    r"|\x1b[ -/]*[0-~]"
)


def clean(text: str) -> str:
    """Make text from files and models safe for a terminal and a UTF-8 stream, in one line.

    Escape sequences are removed, control and formatting characters become spaces, lone surrogates U+FFFD.
    """
    if text.isprintable():  # as nearly all texts are
        return text
    return "".join(map(_shown, _ESCAPE_SEQUENCE.sub("", text)))


def _shown(character: str) -> str:
    if "\ud800" <= character <= "\udfff":  # a file name's byte that is not UTF-8
        return "\ufffd"
    return character if character.isprintable() else " "


def clean_lines(text: str) -> list[str]:
    """Make text of several lines safe for a terminal, as `clean` does; returns the lines.

    It keeps the joiners of emoji and Persian words, and turns tabs into spaces.
    """
    rest = _ESCAPE_SEQUENCE.sub("", text).splitlines()
    return ["".join(c if c in JOINERS else _shown(c) for c in line.expandtabs(4)).rstrip() for line in rest]


def duration(seconds: float) -> str:
    """Format seconds as `3.2 s`, `4m 05s` or `2h 03m`."""
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}h {m:02}m" if hours else f"{m}m {s:02}s"


def in_bytes(number: int) -> str:
    """Format bytes as `4.7 GB` or `350 MB`, with units of 1000, as Ollama and rich do."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= size:
            return f"{number / size:.1f} {unit}" if number < 100 * size else f"{number / size:.0f} {unit}"
    return f"{number} bytes"


def countdown(seconds: float | None) -> str:
    """Format seconds as `0:32`, `4:05` or `2:03:10`; `-:--` if unknown."""
    if seconds is None:
        return "-:--"
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02}:{s:02}" if hours else f"{m}:{s:02}"


def summary_line(summary: Summary) -> str:
    """The summary of a run in one line."""
    closed = folders_or_files(summary.unreadable)
    if summary.total == 0 and not summary.stopped:
        others = counted(summary.ignored, "other file")
        kinds = f"; {not_read(summary.ignored_kinds)}" if summary.ignored_kinds else ""
        hidden = f"; {skipped_entries(summary.skipped_entries)}" if summary.skipped_entries else ""
        return f"no images found ({others}, {closed} that could not be read){kinds}{hidden}"
    parts = [f"{summary.succeeded} answered"]
    kinds = f" ({not_read(summary.ignored_kinds)})" if summary.ignored_kinds else ""
    for number, what in (
        (summary.duplicates, f"{summary.duplicates} of them duplicates"),
        (summary.cached, f"{summary.cached} of them from the cache"),
        (summary.fallbacks, f"{summary.fallbacks} of them by a fallback"),
        (
            summary.reduced,
            f"{summary.reduced} of them with a smaller picture, since a larger one did not fit",
        ),
        (summary.failed, f"{summary.failed} failed"),
        (summary.skipped, f"{summary.skipped} done before"),
        (summary.failed_before, f"{summary.failed_before} failed before (--retry-failed retries them)"),
        (summary.frames, f"{summary.frames} with several pages or frames (only the first was read)"),
        (summary.ignored, f"{counted(summary.ignored, 'other file')} ignored{kinds}"),
        (len(summary.skipped_entries), skipped_entries(summary.skipped_entries)),
        (summary.unreadable, f"{closed} could not be read"),
    ):
        if number:
            parts.append(what)
    rate = summary.succeeded / summary.duration_s if summary.duration_s > 0 else 0.0
    if summary.cost is not None:
        parts.append(f"for ${summary.cost:.4f}")
    end = "stopped" if summary.stopped else "finished"
    pace = f" ({rate:.1f} images/s, {summary.usage.output_tokens} tokens)" if summary.succeeded else ""
    return f"{end}: {', '.join(parts)} in {duration(summary.duration_s)}{pace}"


def not_read(kinds: Mapping[str, int]) -> str:
    """The ignored files that may hold pictures: `3 PDF, 1 ZIP: not read`."""
    return f"{_by_kind(kinds)}: not read"


def skipped_entries(kinds: Mapping[str, int]) -> str:
    """The skipped entries: `4 hidden or system entries skipped (3 hidden, 1 @eaDir)`."""
    number = sum(kinds.values())
    return f"{number} hidden or system {'entry' if number == 1 else 'entries'} skipped ({_by_kind(kinds)})"


def _by_kind(kinds: Mapping[str, int]) -> str:
    """The numbers of the most frequent kinds: `3 PDF, 1 ZIP`."""
    ordered = sorted(kinds.items(), key=lambda item: (-item[1], item[0]))
    named = [f"{number} {kind}" for kind, number in ordered[:SHOWN_KINDS]]
    others = sum(number for _, number in ordered[SHOWN_KINDS:])
    return ", ".join([*named, *([f"{others} of other kinds"] if others else [])])


def endpoint_lines(summary: Summary) -> list[str]:
    """One line for each endpoint, if there are several."""
    lines = []
    for row in summary.endpoints:
        if not row.model:
            lines.append(f"  {row.url}: was down during the whole run")
            continue
        name = f"{row.url} ({row.model})"
        failed = f", {row.failed} failed" if row.failed else ""
        rate = row.answered / summary.duration_s if summary.duration_s > 0 else 0.0
        pace = f" ({rate:.1f} images/s, {row.usage.output_tokens} tokens)" if row.answered else ""
        lines.append(f"  {name}: {row.answered} answered{failed}{pace}")
    return lines


def folders_or_files(number: int) -> str:
    """A number of folders or files: `1 folder or file`, `2 folders or files`."""
    return f"{number} folders or files" if number != 1 else "1 folder or file"


def counted(number: int, thing: str) -> str:
    """A number and its noun: `1 record`, `2 records`."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
