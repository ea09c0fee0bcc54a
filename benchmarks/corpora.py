"""Makes folders of images for benchmarks: the same each time, no two images alike. It measures nothing."""

import random
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from itertools import cycle, product
from pathlib import Path

from PIL import Image, ImageChops

SAMPLES = Path(__file__).parent.parent / "samples"
PHOTO_SIZE = (4000, 3000)
SMALL_SIZE = (640, 480)
NOISE = 0.04
SEEDS = 12
"""Photographs of which many() and varied() make all others."""
_TABLE = b"\xff\xdb"  # a quantisation table, ITU-T T.81 B.2.4.1
_HEAD_BYTES = 5  # of its segment: marker, length, number


def photographs(folder: Path, count: int) -> Path:
    """Make 12-megapixel photographs of about 2.3 MB, as a camera would write them.

    They are composed of the enlarged sample photographs, with detail and noise at pixel scale on top.
    Enlarging alone gives images that are too smooth and files that decode too fast.
    """
    chance = random.Random(12)
    detail = Image.merge("RGB", [_detail(PHOTO_SIZE)] * 3)
    noise = Image.frombytes("L", PHOTO_SIZE, chance.randbytes(PHOTO_SIZE[0] * PHOTO_SIZE[1]))
    noise = Image.merge("RGB", [noise] * 3)
    scenes = [Image.blend(_scene(chance, PHOTO_SIZE), detail, 0.15) for _ in range(min(count, 6))]

    def photograph(number: int) -> bytes:
        moved = ImageChops.offset(noise, 97 * number + 1, 61 * number)
        return _jpeg(Image.blend(scenes[number % len(scenes)], moved, NOISE), 90)

    return _write(folder, count, photograph)


def small(folder: Path, count: int, size: tuple[int, int] = SMALL_SIZE, quality: int = 85) -> Path:
    """Make photographs that need no shrinking, each a different part of a scene; at 640x480 about 42 kB."""
    chance = random.Random(640)
    large = _scene(chance, (2000, 1500))
    large = Image.blend(large, Image.merge("RGB", [_detail(large.size)] * 3), 0.2)
    places = [
        (chance.randint(0, large.width - size[0]), chance.randint(0, large.height - size[1]))
        for _ in range(count)
    ]

    def part(number: int) -> bytes:
        left, top = places[number]
        return _jpeg(large.crop((left, top, left + size[0], top + size[1])), quality)

    return _write(folder, count, part)


def many(folder: Path, count: int, size: tuple[int, int], quality: int = 85) -> Path:
    """Make up to a million images at the speed of the disk.

    They are a few photographs with a different quantisation table in each file, so that each decodes to
    different pixels.
    """
    seeds = small(folder.with_name(f"{folder.name}-seeds"), SEEDS, size, quality)
    for number, jpeg in zip(range(count), varied(seeds), strict=False):
        if number % 1000 == 0:
            place = folder / f"{number // 1000:04}"
            place.mkdir(parents=True)
        # "wb" would truncate first, which is five times slower on ext4
        with (place / f"{number:07}.jpg").open("xb") as file:
            file.write(jpeg)
    return folder


def varied(seeds: Path) -> Iterator[bytes]:
    """The JPEGs of the folder, 160,000 times, each time with another quantisation table."""
    jpegs = [file.read_bytes() for file in sorted(seeds.iterdir())]
    for steps in product(range(5, 25), repeat=4):
        for jpeg in jpegs:
            yield _with_table(jpeg, steps)


def _with_table(jpeg: bytes, steps: Iterable[int]) -> bytes:
    """The same JPEG with other steps for the coarsest parts of its first quantisation table."""
    first = jpeg.index(_TABLE) + _HEAD_BYTES
    coarse = bytes(steps)
    return jpeg[:first] + coarse + jpeg[first + len(coarse) :]


def _write(folder: Path, count: int, make: Callable[[int], bytes]) -> Path:
    folder.mkdir(parents=True)

    def write(number: int) -> None:
        (folder / f"{number:05}.jpg").write_bytes(make(number))

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(write, range(count)))
    return folder


def _jpeg(image: Image.Image, quality: int) -> bytes:
    out = BytesIO()
    image.save(out, "JPEG", quality=quality)
    return out.getvalue()


def _samples() -> list[Image.Image]:
    return [Image.open(file).convert("RGB") for file in sorted(SAMPLES.glob("photo-*.jpg"))]


def _scene(chance: random.Random, size: tuple[int, int]) -> Image.Image:
    """An image of four enlarged parts of the sample photographs."""
    scene, samples = Image.new("RGB", size), _samples()
    width, height = size[0] // 2, size[1] // 2
    for corner in ((0, 0), (width, 0), (0, height), (width, height)):
        sample = chance.choice(samples)
        high = chance.randint(200, sample.height)
        wide = min(sample.width, high * width // height)
        left, top = chance.randint(0, sample.width - wide), chance.randint(0, sample.height - high)
        part = sample.crop((left, top, left + wide, top + high))
        scene.paste(part.resize((width, height), Image.Resampling.BICUBIC), corner)
    return scene


def _detail(size: tuple[int, int]) -> Image.Image:
    """The sample photographs in grey, not enlarged, side by side until the image is full."""
    detail, samples = Image.new("L", size), cycle([sample.convert("L") for sample in _samples()])
    high = 300
    for top in range(0, size[1], high):
        left = 0
        while left < size[0]:
            sample = next(samples)
            detail.paste(sample.crop((0, 0, sample.width, high)), (left, top))
            left += sample.width
    return detail
