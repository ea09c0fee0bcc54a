"""`vlmbatch run --dry-run`: tells on standard error what a run would send, and where."""

from vlmbatch.cli.speaking import Voice
from vlmbatch.config import RunConfig
from vlmbatch.events import tell
from vlmbatch.preview import Preview, preview
from vlmbatch.progress import JsonLog, Lines
from vlmbatch.protocols import Observer

SHOWN_SIZES = 3


def tell_plan(config: RunConfig, voice: Voice) -> None:
    """Walk, count and tell; standard output stays empty, as in every run that writes no record."""
    observer: Observer = JsonLog(voice.stream) if config.display.log_json else Lines(voice.stream)
    for line in plan(config, preview(config, observer)):
        tell(observer, line)


def plan(config: RunConfig, found: Preview) -> list[str]:
    """The lines to show."""
    formats = ", ".join(f"{n} {name}" for name, n in found.formats.most_common())
    sizes = ", ".join(f"{n} at {w}x{h}" for (w, h), n in found.sent_sizes.most_common(SHOWN_SIZES))
    more = len(found.sent_sizes) - SHOWN_SIZES
    others = f" and {more} other sizes" if more > 0 else ""
    output = "standard output" if config.output.output == "-" else config.output.output
    lines = [
        f"images: {found.images}" + (f" ({formats})" if formats else ""),
        f"on disk: {found.bytes / 1e6:.1f} MB, {found.megapixels:.1f} megapixels",
        f"to send: {found.sent_megapixels:.1f} megapixels" + (f", {sizes}{others}" if sizes else ""),
        f"to: {found.backend} ({found.place}), model {config.endpoint.model or 'found at the start'}",
        f"prompt: {found.prompt}",
        f"records to: {output}",
    ]
    if found.ignored or found.unreadable:
        lines.append(f"left out: {found.ignored} that are no images, {found.unreadable} unreadable folders")
    if found.failing:
        lines.append(f"would fail: {found.failing}")
        lines += [f"  {problem}" for problem in found.problems]
    return [*lines, "nothing was sent (--dry-run)"]
