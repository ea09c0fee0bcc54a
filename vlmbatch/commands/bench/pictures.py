"""The pictures of a measurement: the user's images in turn, or drawn ones that all differ."""

import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from typing import Protocol

from vlmbatch.config import RunConfig
from vlmbatch.errors import ConfigError, ImageError
from vlmbatch.images import PreparedImage
from vlmbatch.imaging.drawn import VARIANTS, Varied, drawn_scene
from vlmbatch.imaging.prepare import prepare
from vlmbatch.imaging.sizing import Sizing
from vlmbatch.observers.format import counted
from vlmbatch.pipeline.empty_paths import why_refused
from vlmbatch.sources import DirectorySource
from vlmbatch.sources.directory import check_exists

MOST_IMAGES = 256
"""So many images of a folder are prepared; they stay in memory."""
SCENES = 16


class Pictures(Protocol):
    """Gives the picture of each request."""

    def take(self) -> PreparedImage:
        """The next picture."""

    def notes(self) -> list[str]:
        """What the user should know about the pictures that were taken."""


class DrawnPictures:
    """Drawn pictures, none of which is sent twice, so that no cache of the server can answer."""

    def __init__(self, config: RunConfig, sizing: Sizing) -> None:
        """Draws and prepares them; blocks."""
        self._scenes = [
            Varied(prepare(drawn_scene(number), config.image, sizing=sizing)) for number in range(SCENES)
        ]
        self._next = random.randrange(SCENES * VARIANTS)  # the server may remember an earlier measurement

    def take(self) -> PreparedImage:
        """The next picture."""
        variant, scene = divmod(self._next, SCENES)
        self._next = (self._next + 1) % (SCENES * VARIANTS)
        return self._scenes[scene].variant(variant)

    def notes(self) -> list[str]:
        """Nothing."""
        return []


class UserPictures:
    """The images of the user in turn, as a run would send them."""

    def __init__(self, path: str, config: RunConfig, sizing: Sizing) -> None:
        """Reads and prepares the first images; blocks.

        Raises:
            ConfigError: the path does not exist, or none of its images can be sent.
        """
        check_exists(path)
        source = DirectorySource((path,), config.input)
        if (refused := why_refused(config, source)) is not None:
            raise ConfigError(refused)
        self._pictures: list[PreparedImage] = []
        self._problems: list[str] = []
        self._taken = 0
        for ref in islice(source, MOST_IMAGES):
            try:
                picture = prepare(source.read(ref).data, config.image, sizing=sizing)
            except ImageError as error:
                self._problems.append(f"{ref.id}: {error}")
            else:
                self._pictures.append(replace(picture, file=ref.uri) if picture.is_original else picture)
        if not self._pictures:
            raise ConfigError(
                f"none of the images below {path} can be sent, the first is {self._problems[0]}; "
                "name other images with --images, or leave it out"
            )

    def take(self) -> PreparedImage:
        """The next picture."""
        picture = self._pictures[self._taken % len(self._pictures)]
        self._taken += 1
        return picture

    def notes(self) -> list[str]:
        """Which images were left out, and that images were sent more than once."""
        return [*_left_out(self._problems), *self._repeats()]

    def _repeats(self) -> list[str]:
        often = self._taken / len(self._pictures)
        if often <= 1:
            return []
        return [
            f"each image was sent {often:.1f} times on average, and a server with a cache answers it faster "
            "than a new image; name more images, or leave --images out"
        ]


def _left_out(problems: Sequence[str]) -> list[str]:
    if not problems:
        return []
    return [f"{counted(len(problems), 'image')} cannot be sent, the first is {problems[0]}"]


def pictures_of(path: str | None, config: RunConfig, sizing: Sizing) -> Pictures:
    """The images at this path, or drawn pictures without a path; blocks, and raises as UserPictures does."""
    return DrawnPictures(config, sizing) if path is None else UserPictures(path, config, sizing)
