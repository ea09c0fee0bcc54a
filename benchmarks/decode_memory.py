"""Measures the memory of decoding, against the share that vlmbatch reserves before it decodes.

Each row is an image of 24 megapixels, prepared in a process of its own: the estimate of `decode_bytes` and
the measured peak, both in bytes a pixel, and their ratio, which must not be above 1. Linux only (/proc).
"""

import io
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import tifffile
from PIL import Image

from vlmbatch.config.groups import ImageOptions
from vlmbatch.imaging.prepare import prepare

SIZE = (6000, 4000)
PIXELS = SIZE[0] * SIZE[1]
TESTS = Path(__file__).parent.parent / "tests"
SAMPLE = Path(__file__).parent.parent / "samples" / "photo-coffee.jpg"
MAX_SIZES = (1024, 4000, 0)


sys.path.insert(0, str(TESTS))
from pictures import multi_scan  # noqa: E402  # Pillow cannot write several scans; the import registers HEIC, too


def write_pictures(folder: Path) -> list[Path]:
    """Write the same photo in many formats and modes."""
    rgb = Image.open(SAMPLE).convert("RGB").resize(SIZE)
    grey = rgb.convert("L")
    kinds = {
        "baseline.jpg": (rgb, {}),
        "progressive.jpg": (rgb, {"progressive": True, "subsampling": 0}),
        "cmyk.jpg": (rgb.convert("CMYK"), {}),
        "rgb.png": (rgb, {"compress_level": 1}),
        "rgba.png": (rgb.convert("RGBA"), {"compress_level": 1}),
        "palette.png": (rgb.quantize(64), {}),
        "transparent-grey.png": (grey, {"transparency": 3, "compress_level": 1}),
        "bilevel.png": (rgb.convert("1"), {}),
        "16-bit.png": (grey.convert("I;16"), {"compress_level": 1}),
        "lossy.webp": (rgb, {"quality": 60, "method": 0}),
        "lossless.webp": (rgb.convert("RGBA"), {"lossless": True, "method": 0}),
        "float.tif": (rgb.convert("F"), {}),
        "plain.tif": (rgb, {}),
        "lzw.tif": (rgb, {"compression": "tiff_lzw"}),
        "fax.tif": (rgb.convert("1"), {"compression": "group4", "dpi": (204, 98)}),
        "palette.gif": (rgb.quantize(64), {}),
        "plain.bmp": (rgb, {}),
        "turned.tif": (rgb, {"tiffinfo": {274: 6}}),
        "photo.avif": (rgb, {"quality": 50, "speed": 10}),
        "photo.heic": (rgb, {"quality": 50}),
    }
    paths = []
    for name, (picture, options) in kinds.items():
        paths.append(folder / name)
        picture.save(paths[-1], **options)
    paths += write_deep_pictures(folder, np.asarray(rgb))
    paths.append(folder / "three-scans.jpg")
    paths[-1].write_bytes(multi_scan(rgb))
    return paths


def write_deep_pictures(folder: Path, rgb: "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]") -> list[Path]:
    """Write the photo in samples that Pillow does not write, or not decode."""
    grey, packed = rgb[..., 1], {"compression": "adobe_deflate"}
    kinds: dict[str, tuple[Any, dict[str, Any]]] = {
        "dark-16-bit.tif": (rgb * np.uint16(16), {"photometric": "rgb"} | packed),
        "dark-planes.tif": (np.moveaxis(rgb * np.uint16(16), -1, 0), {"photometric": "rgb"} | packed),
        "float64.tif": (grey / 255, packed),
        "float32-rgb.tif": (rgb / np.float32(255), {"photometric": "rgb", "predictor": True} | packed),
        "float16-rgb-raw.tif": ((rgb / np.float32(255)).astype("f2"), {"photometric": "rgb"}),
        "uint32-rgb-one-strip.tif": (
            rgb * np.uint32(257),
            {"photometric": "rgb", "rowsperstrip": SIZE[1]} | packed,
        ),
        "nan.tif": (np.where(grey > 250, np.float32("nan"), grey.astype("f4")), {}),
        "grey-alpha-16.tif": (
            np.stack((grey, grey), -1) * np.uint16(257),
            {"photometric": "minisblack", "planarconfig": "contig", "extrasamples": ["unassalpha"]} | packed,
        ),
        "cmyk-alpha.tif": (
            np.concatenate((rgb, rgb[..., :2]), -1),
            {"photometric": "separated", "planarconfig": "contig", "extrasamples": ["unassalpha"]} | packed,
        ),
        "lab-16.tif": (rgb * np.uint16(257), {"photometric": "cielab"} | packed),
    }
    for name, (samples, options) in kinds.items():
        tifffile.imwrite(folder / name, samples, metadata=None, **options)
    return [folder / name for name in kinds]


def peak() -> int:
    """The peak memory of this process since the last reset, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM:")).split()[1])


def measure(path: Path, max_size: int) -> None:
    """Prepare one file and print the estimate and the peak, in bytes."""
    weights = []

    @contextmanager
    def room(weight: int | None) -> Iterator[None]:
        weights.append(weight)
        yield

    warm = io.BytesIO()
    Image.new("RGB", (64, 64)).save(warm, "JPEG")
    prepare(warm.getvalue(), ImageOptions())
    data = path.read_bytes()
    Path("/proc/self/clear_refs").write_text("5")
    before = peak()
    prepare(data, ImageOptions(max_size=max_size), room)
    print(weights[-1], peak() - before)


def main() -> int:
    """Print the table; returns 1 if an image took more than its estimate."""
    worst = 0.0
    print(f"{'24 megapixels':24} {'--max-size':>10} {'B/px weight':>12} {'B/px measured':>14} {'ratio':>6}")
    with TemporaryDirectory() as folder:
        for path in write_pictures(Path(folder)):
            for max_size in MAX_SIZES:
                command = [sys.executable, __file__, str(path), str(max_size)]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                weight, measured = map(int, done.stdout.split())
                worst = max(worst, measured / weight)
                shown = f"{weight / PIXELS:12.2f} {measured / PIXELS:14.2f} {measured / weight:6.2f}"
                print(f"{path.name:24} {max_size:10} {shown}", flush=True)
    print(f"at most {worst:.2f} of the weight")
    return int(worst > 1)


if __name__ == "__main__":
    if len(sys.argv) == 3:
        measure(Path(sys.argv[1]), int(sys.argv[2]))
    else:
        sys.exit(main())
