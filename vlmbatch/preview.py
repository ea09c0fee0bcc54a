"""What a run would do, found out by walking and reading headers; it asks no endpoint anything."""

import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from vlmbatch import imaging
from vlmbatch.backends import open_backend
from vlmbatch.config import RunConfig
from vlmbatch.errors import ImageError
from vlmbatch.imaging.shape import fitted
from vlmbatch.prompts import prompt_text
from vlmbatch.protocols import Observer, Source
from vlmbatch.sources import open_source

SHOWN_PROBLEMS = 20


@dataclass(kw_only=True)
class Preview:
    """Counts over all images below the paths. Sizes are in bytes, pixels in megapixels."""

    backend: str
    place: str
    prompt: str
    images: int = 0
    bytes: int = 0
    megapixels: float = 0.0
    sent_megapixels: float = 0.0
    ignored: int = 0
    unreadable: int = 0
    formats: Counter[str] = field(default_factory=Counter)
    sent_sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    failing: int = 0


def preview(config: RunConfig, notify: Observer) -> Preview:
    """Walk everything and read each header; blocks until it is through.

    Raises:
        ConfigError: what would end the run at its start, as far as can be told without asking.
    """
    backend = open_backend(config)
    source = open_source(config.paths, config.input, notify)
    found = Preview(backend=backend.name, place=backend.place, prompt=prompt_text(config.prompt))
    for problem in _problems(config, source, found):
        found.failing += 1
        if len(found.problems) < SHOWN_PROBLEMS:
            found.problems.append(problem)
    found.ignored, found.unreadable = source.ignored, source.unreadable
    return found


def _problems(config: RunConfig, source: Source, found: Preview) -> Iterator[str]:
    """Count each image into `found`; yield what would fail."""
    for ref in itertools.islice(source, config.input.limit):
        found.images += 1
        try:
            image = source.read(ref)
            header = imaging.inspect(image.data, config.image.max_pixels_in)
            size = fitted((header.width, header.height), config.image.max_size)
        except ImageError as error:
            yield f"{ref.id}: {error.kind}: {error}"
            continue
        found.bytes += image.stamp.bytes
        found.formats[header.format] += 1
        found.megapixels += header.width * header.height / 1e6
        found.sent_sizes[size] += 1
        found.sent_megapixels += size[0] * size[1] / 1e6
