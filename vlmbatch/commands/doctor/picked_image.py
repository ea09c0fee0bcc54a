"""The image that doctor sends: a drawn one, an image file, or the first good image of a folder."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from vlmbatch.commands.doctor.finding import Finding
from vlmbatch.commands.doctor.image_check import read_image
from vlmbatch.config import RunConfig
from vlmbatch.errors import ConfigError, ImageError
from vlmbatch.events import SourceProblem
from vlmbatch.images import ImageRef
from vlmbatch.imaging.capabilities import drawn_shapes
from vlmbatch.imaging.prepare import prepare
from vlmbatch.observers.format import counted, folders_or_files, not_read
from vlmbatch.pipeline.empty_paths import why_refused
from vlmbatch.sources import DirectorySource
from vlmbatch.sources.directory import check_exists

MOST_COUNTED = 1000
"""The count of a folder stops here, so that a large folder takes no time."""
MOST_TRIED = 5
CHECK = "images"


@dataclass(frozen=True, slots=True, kw_only=True)
class PickedImage:
    """The bytes of the image, and the findings about its folder.

    `folder` is the checked folder; None without one. `usable`: a run would find an image that can be sent.
    """

    data: bytes
    findings: tuple[Finding, ...] = ()
    folder: str | None = None
    usable: bool = True


def pick_image(path: str | None, config: RunConfig) -> PickedImage:
    """Read the image at this path, or the first good one if it is a folder, else draw one; blocks.

    Raises:
        ConfigError: the path does not exist, or the file cannot be read or is too large.
    """
    if path is not None:
        check_exists(path)
    if path is None or not Path(path).is_dir():
        return PickedImage(data=read_image(path, config))
    problems: list[SourceProblem] = []
    source = DirectorySource((path,), config.input, problems.append)
    if (refused := why_refused(config, source)) is not None:
        return _unusable(path, [_wrong(refused, "name a folder that holds images")])
    refs = list(islice(source, MOST_COUNTED))
    data, broken = _first_good(source, refs[:MOST_TRIED], config)
    findings = [*broken, *_unreadable(problems)]
    number = counted(len(refs), "image") if len(refs) < MOST_COUNTED else f"at least {MOST_COUNTED:,} images"
    told = f"{number} below {path}"
    if source.ignored_kinds:
        told += f" ({not_read(source.ignored_kinds)})"
    if data is None:
        told += f", and none of the first {len(broken)} can be sent; a drawn one is sent instead"
        return _unusable(path, [*findings, _wrong(told, "look at these files, or name another folder")])
    good = Finding(
        check=CHECK,
        mark="ok",
        told=f"{told}; {refs[len(broken)].id} is sent",
        figures={"images": len(refs)},
    )
    return PickedImage(data=data, findings=(good, *findings), folder=path)


def _first_good(
    source: DirectorySource, refs: Sequence[ImageRef], config: RunConfig
) -> tuple[bytes | None, list[Finding]]:
    """The bytes of the first image that can be sent, and a finding for each broken one before it."""
    broken: list[Finding] = []
    for ref in refs:
        try:
            data = source.read(ref).data
            prepare(data, config.image)
        except ImageError as error:
            advice = "a run writes a record with this error, and goes on"
            broken.append(Finding(check=CHECK, mark="warning", told=f"{ref.id}: {error}", advice=advice))
        else:
            return data, broken
    return None, broken


def _unreadable(problems: Sequence[SourceProblem]) -> Iterator[Finding]:
    if problems:
        first = f"{problems[0].path}: {problems[0].message}"
        told = f"{folders_or_files(len(problems))} could not be read, the first is {first}"
        yield Finding(check=CHECK, mark="warning", told=told, advice="change the permissions")


def _wrong(told: str, advice: str) -> Finding:
    return Finding(check=CHECK, mark="wrong", told=told, advice=advice, exit_code=ConfigError.exit_code)


def _unusable(path: str, findings: Sequence[Finding]) -> PickedImage:
    """The result for a folder without a good image; the endpoints are checked with a drawn one."""
    return PickedImage(data=drawn_shapes(), findings=tuple(findings), folder=path, usable=False)
