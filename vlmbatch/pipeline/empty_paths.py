"""The messages about PATHs that hold no image: a folder whose disk is not mounted, or an inbox."""

from collections.abc import Iterator, Sequence

from vlmbatch.config import RunConfig
from vlmbatch.protocols import Source
from vlmbatch.sources.globs import start_below
from vlmbatch.writers.earlier_records import count_records

SHOWN_PATHS = 3


def why_refused(config: RunConfig, source: Source) -> str | None:
    """Why a run cannot start: its PATHs are folders without any image. Else, or with --allow-empty, None.

    The message says what the folders hold instead, and what to type. The walk goes on to its first image.
    """
    if config.input.allow_empty or not source.holds_nothing():
        return None
    globs = config.input.include or config.input.exclude
    nothing = "0 files that --include and --exclude accept" if globs else "0 files"
    return (
        f"no image below {_named(source.empty_paths)}: {', '.join(_instead(source)) or nothing}. "
        f"{_earlier_records(config, source.empty_paths)}Perhaps a disk is not mounted. "
        "If the folders may be empty, such as an inbox, add --allow-empty"
    )


def empty_notice(config: RunConfig, paths: Sequence[str]) -> str | None:
    """The message about these PATHs, which hold no image; None if there are none, or with --allow-empty."""
    if config.input.allow_empty or not paths:
        return None
    return f"no image below {_named(paths)}; perhaps a disk is not mounted (--allow-empty hides this message)"


def _named(paths: Sequence[str]) -> str:
    more = len(paths) - SHOWN_PATHS
    return ", ".join(paths[:SHOWN_PATHS]) + (f" and {more} more" if more > 0 else "")


def _instead(source: Source) -> Iterator[str]:
    """What the folders hold instead of images."""
    from vlmbatch.observers.format import counted, folders_or_files, not_read, skipped_entries  # loads rich

    if source.ignored:
        kinds = f" ({not_read(source.ignored_kinds)})" if source.ignored_kinds else ""
        yield f"{counted(source.ignored, 'other file')}{kinds}"
    if source.skipped_entries:
        yield f"{skipped_entries(source.skipped_entries)}; name such a folder as a PATH to read it"
    if source.unreadable:
        yield f"{folders_or_files(source.unreadable)} could not be read"


def _earlier_records(config: RunConfig, paths: Sequence[str]) -> str:
    """A sentence that counts the records of images below these PATHs; empty if there are none."""
    output = config.output.output
    number = 0 if output == "-" else count_records(output, map(start_below, paths))
    records = f"{number} record" if number == 1 else f"{number} records"
    return f"{output} has {records} of images that were there before. " if number else ""
