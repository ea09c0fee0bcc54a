"""Claim: preparing an image costs hardly more than its bare parts, and far less than the plain way.

For each kind of image, milliseconds of CPU from the bytes of the file to the base64 of the sent image:

- ours: `vlmbatch.imaging.prepare.prepare`, which also checks for hostile files, turns the image upright and
  brings it to sRGB;
- bare: a careful script with Pillow alone, without any of that: decode (a JPEG at half its size if that is
  enough), resize with a bicubic filter if the image is too large, encode, base64;
- plain: the way of most scripts: open, convert to RGB, thumbnail with LANCZOS, encode, base64.

All three run in turn in each round, in random order; the figures are medians. `rows()` is for other programs.

    python benchmarks/preparation.py [--rounds 15] [--only NAME]
"""

import argparse
import random
import statistics
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image, ImageChops, ImageCms, ImageDraw

from vlmbatch.config.groups import ImageOptions
from vlmbatch.imaging.prepare import prepare
from vlmbatch.imaging.resize import has_simd

SAMPLES = Path(__file__).parent.parent / "samples"
MAX_SIDE, QUALITY = 1024, 85
OPTIONS = ImageOptions(max_size=MAX_SIDE, quality=QUALITY)
Way = Callable[[bytes], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """CPU milliseconds for an image of one kind."""

    kind: str
    file_bytes: int
    ours: float
    bare: float
    plain: float


def photo(name: str, size: tuple[int, int]) -> Image.Image:
    """A sample photo at any size, with the detail and the grain of a camera's pixels."""
    sample = Image.open(SAMPLES / name).convert("RGB")
    base = sample.resize(size, Image.Resampling.BICUBIC)
    detail = Image.new("L", size)
    for x in range(0, size[0], sample.width):
        for y in range(0, size[1], sample.height):
            detail.paste(sample.convert("L"), (x, y))
    textured = Image.blend(base, detail.convert("RGB"), 0.06)
    return ImageChops.add(textured, Image.effect_noise(size, 4).convert("RGB"), 1, -128)


def screenshot() -> Image.Image:
    """Lines of text in many colours, and a photo."""
    image, chance = Image.new("RGB", (1920, 1080), (30, 30, 34)), random.Random(3)
    pen = ImageDraw.Draw(image)
    for y in range(0, 1080, 18):
        text = "".join(chr(chance.randrange(33, 127)) for _ in range(200))
        pen.text((20, y), text, fill=tuple(chance.randrange(100, 256) for _ in range(3)))
    image.paste(photo("photo-coffee.jpg", (600, 400)), (1280, 600))
    return image


def exif(orientation: int = 1) -> bytes:
    """The EXIF data of a phone: place, time and device."""
    tags = Image.Exif()
    tags[ExifTags.Base.Orientation] = orientation
    tags[ExifTags.Base.Make], tags[ExifTags.Base.Model] = "Maker", "Phone 7"
    tags[ExifTags.Base.DateTime] = "2026:01:02 03:04:05"
    tags.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.MakerNote] = random.Random(1).randbytes(1500)
    tags.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitude] = (47.0, 22.0, 11.0)
    return tags.tobytes()


def encoded(image: Image.Image, name: str = "JPEG", **options: Any) -> bytes:
    """The image as the bytes of a file."""
    out = BytesIO()
    image.save(out, name, **options)
    return out.getvalue()


def pictures() -> Iterator[tuple[str, bytes]]:
    """Yield a file of each kind."""
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    camera: dict[str, Any] = {"quality": 90, "exif": exif(), "icc_profile": srgb}
    small = photo("photo-astronaut.jpg", (640, 480))
    yield "JPEG, 24 MP", encoded(photo("photo-cat.jpg", (6000, 4000)), **camera)
    yield "JPEG, 12 MP", encoded(photo("photo-coffee.jpg", (4000, 3000)), **camera)
    yield "JPEG, 2 MP", encoded(photo("photo-cat.jpg", (1632, 1224)), **camera)
    yield "JPEG, 640x480, bare", encoded(small, quality=90)
    yield "JPEG, 640x480, as of a phone", encoded(small, **camera)
    yield "JPEG, 640x480, to be turned", encoded(small, quality=90, exif=exif(6))
    yield "JPEG, 640x480, progressive", encoded(small, quality=90, progressive=True)
    yield "PNG, 1920x1080, screenshot", encoded(screenshot(), "PNG")
    yield "PNG, 640x480", encoded(small, "PNG")
    yield "WebP, 640x480", encoded(small, "WEBP")


def ours(data: bytes) -> object:
    """Prepare as vlmbatch does."""
    return prepare(data, OPTIONS)


def bare(data: bytes) -> bytes:
    """Prepare with the bare parts alone."""
    image = Image.open(BytesIO(data))
    scale = min(1, MAX_SIDE / max(image.size))
    target = (round(image.width * scale), round(image.height * scale))
    image.draft(None, (target[0] * 3 // 2, target[1] * 3 // 2))
    image.load()
    small: Image.Image = image
    if target != image.size:
        small = image.resize(target, Image.Resampling.BICUBIC)
    return b64encode(encoded(small, quality=QUALITY))


def plain(data: bytes) -> bytes:
    """Prepare as most scripts do."""
    image = Image.open(BytesIO(data)).convert("RGB")
    image.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
    return b64encode(encoded(image, quality=QUALITY))


def cpu_ms(work: Way, data: bytes) -> float:
    """The CPU milliseconds of one call in this thread."""
    start = time.thread_time()
    work(data)
    return 1000 * (time.thread_time() - start)


def rows(rounds: int = 15, only: str = "") -> Iterator[Row]:
    """Measure each kind of picture whose name holds `only`."""
    chance = random.Random(7)
    for kind, data in pictures():
        if only not in kind:
            continue
        costs: dict[Way, list[float]] = {ours: [], bare: [], plain: []}
        # a small image is measured more often, since its cost is near the resolution of the clock
        for _ in range(rounds if len(data) > 300_000 else 10 * rounds):
            for way in chance.sample(list(costs), len(costs)):
                costs[way].append(cpu_ms(way, data))
        medians = {way.__name__: statistics.median(values[1:]) for way, values in costs.items()}
        yield Row(kind=kind, file_bytes=len(data), **medians)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", default="", help="kinds whose name holds this")
    arguments = parser.parse_args()
    print(f"CPU ms a picture, with cykooz.resizer (extra `fast`): {'yes' if has_simd() else 'no'}\n")
    print("| kind | file kB | ours | bare | plain | ours / bare | plain / ours |")
    print("|---|---|---|---|---|---|---|")
    for row in rows(arguments.rounds, arguments.only):
        cells = (f"{row.ours:.2f}", f"{row.bare:.2f}", f"{row.plain:.2f}")
        ratios = f"{row.ours / row.bare:.2f} | {row.plain / row.ours:.2f}"
        print(
            f"| {row.kind} | {row.file_bytes / 1000:.0f} | {' | '.join(cells)} | {ratios} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
