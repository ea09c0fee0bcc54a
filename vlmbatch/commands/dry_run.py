"""The dry run: it walks the sources and reads image headers, and sends no request."""

import itertools
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from vlmbatch.backends.registry import open_backend
from vlmbatch.config import RunConfig
from vlmbatch.endpoints.discovery import EndpointUrls, endpoint_specs
from vlmbatch.errors import ConfigError, ImageError
from vlmbatch.imaging.prepare import check_side, inspect
from vlmbatch.imaging.sizing import Sizing, sizing_of
from vlmbatch.imaging.tokens import family_of
from vlmbatch.integer_map import IntegerMap
from vlmbatch.pipeline.empty_paths import why_refused
from vlmbatch.prompts import prompt_text
from vlmbatch.prompts.schemas import schema_text
from vlmbatch.protocols import Observer, Source
from vlmbatch.sources import OwnFiles, open_source

SHOWN_PROBLEMS = 20


@dataclass(kw_only=True)
class DryRunReport:
    """Counts over all images below the paths. Sizes are in bytes, pixels in megapixels."""

    backend: str
    place: str
    prompt: str
    images: int = 0
    duplicates: int = 0
    bytes: int = 0
    megapixels: float = 0.0
    sent_megapixels: float = 0.0
    image_tokens: int | None = None
    ignored: int = 0
    ignored_kinds: Counter[str] = field(default_factory=Counter)
    skipped_entries: Counter[str] = field(default_factory=Counter)
    empty_paths: list[str] = field(default_factory=list)
    refusal: str | None = None
    """Why a run would end with exit code 2: the folders hold no image."""
    frames: int = 0
    unreadable: int = 0
    formats: Counter[str] = field(default_factory=Counter)
    sent_sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    failing: int = 0
    sample: list[str] = field(default_factory=list)
    """A random sample of the usable images, of the size of --probe."""


def dry_run(config: RunConfig, notify: Observer) -> DryRunReport:
    """Walk all paths and read the header of each image; blocks until the end.

    Raises:
        ConfigError: a mistake that would end the run at its start, if it shows without a request.
    """
    schema_text(config.generation.schema)
    urls = EndpointUrls(config.endpoint.base_url).read()
    backends = [
        open_backend(spec.config, deployment=spec.deployment) for spec in endpoint_specs(config, urls)
    ]
    places = ", ".join(backend.place for backend in backends)
    source = open_source(config.paths, config.input, notify, OwnFiles.of(config))
    try:
        sizing = sizing_of(config.image, config.endpoint.model or "")
    except ConfigError:  # the model's family may be known only to the endpoint
        sizing = sizing_of(config.image)
    found = DryRunReport(backend=backends[0].name, place=places, prompt=prompt_text(config.prompt))
    found.refusal = why_refused(config, source)
    for problem in _problems(config, source, sizing, found):
        found.failing += 1
        if len(found.problems) < SHOWN_PROBLEMS:
            found.problems.append(problem)
    found.ignored, found.unreadable = source.ignored, source.unreadable
    found.empty_paths = source.empty_paths
    found.ignored_kinds, found.skipped_entries = source.ignored_kinds, source.skipped_entries
    return found


def _problems(config: RunConfig, source: Source, sizing: Sizing, found: DryRunReport) -> Iterator[str]:
    """Count each image in `found`; yield a line for each image that would fail."""
    contents, sample = IntegerMap(), _Sample(config.display.probe or 0, found.sample)
    family = sizing.family or family_of(config.endpoint.model or "")
    found.image_tokens = None if family is None else 0
    for ref in itertools.islice(source, config.input.limit):
        found.images += 1
        try:
            image = source.read(ref)
            header = inspect(image.data, config.image.max_pixels_in)
            size = sizing(header.square)
            check_side(size)
        except ImageError as error:
            yield f"{ref.id}: {error.kind}: {error}"
            continue
        found.bytes += len(image.data)
        found.formats[header.format] += 1
        found.frames += header.frames > 1
        found.megapixels += header.width * header.height / 1e6
        if config.output.dedupe and not contents.add(int(image.sha256[:16], 16), found.images):
            found.duplicates += 1
            continue
        sample.offer(ref.id)
        found.sent_sizes[size] += 1
        found.sent_megapixels += size[0] * size[1] / 1e6
        if family is not None and found.image_tokens is not None:
            found.image_tokens += family.tokens(size)


class _Sample:
    """A uniform random sample of the offered items (Vitter's algorithm R), the same in each run."""

    def __init__(self, size: int, chosen: list[str]) -> None:
        self._size = size
        self._chosen = chosen
        self._offered = 0
        self._random = random.Random(0)

    def offer(self, item: str) -> None:
        """Add the item to the sample, replace another one, or drop it."""
        self._offered += 1
        if len(self._chosen) < self._size:
            self._chosen.append(item)
        elif self._size and (place := self._random.randrange(self._offered)) < self._size:
            self._chosen[place] = item
