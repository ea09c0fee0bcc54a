"""Draws the pictures of this folder and scales its photographs; needs Pillow, numpy and scikit-image.

Run it as ``python samples/make_samples.py``. The photographs come out of the scikit-image package.
"""

import math
from collections.abc import Iterable
from pathlib import Path

import numpy
import skimage.data
from PIL import ExifTags, Image, ImageDraw

HERE = Path(__file__).parent
SHARPER = 4  # drawn larger and scaled down, for smooth edges

COLOURS = {
    "red": (215, 35, 35),
    "orange": (245, 140, 25),
    "yellow": (250, 225, 45),
    "green": (45, 160, 65),
    "cyan": (40, 200, 215),
    "blue": (40, 75, 215),
    "purple": (125, 50, 170),
    "pink": (250, 150, 195),
    "black": (18, 18, 18),
    "white": (250, 250, 250),
    "gray": (130, 130, 130),
}

Shape = tuple[str, str, float, float, float]
"""Shape, colour, and as parts of the sides: x and y of the centre, and the radius (of the shorter side)."""


def outline(shape: str) -> list[tuple[float, float]]:
    """The corners of a shape of radius 1 around 0, 0."""
    if shape == "circle":
        return [(math.cos(i * math.pi / 90), math.sin(i * math.pi / 90)) for i in range(180)]
    if shape == "square":
        return [(-0.88, -0.88), (0.88, -0.88), (0.88, 0.88), (-0.88, 0.88)]
    if shape == "triangle":
        return [(0, -1), (0.95, 0.8), (-0.95, 0.8)]
    if shape == "star":
        radii = [1 if i % 2 == 0 else 0.42 for i in range(10)]
        return [(r * math.sin(i * math.pi / 5), -r * math.cos(i * math.pi / 5)) for i, r in enumerate(radii)]
    quarter = [(-0.34, -1), (0.34, -1), (0.34, -0.34)]  # a cross: the same quarter turned four times
    turns = [(1, 0), (0, 1), (-1, 0), (0, -1)]
    return [(x * c - y * s, x * s + y * c) for c, s in turns for x, y in quarter]


def draw(size: tuple[int, int], background: str | None, shapes: Iterable[Shape]) -> Image.Image:
    """An RGBA picture; transparent where no background is named."""
    width, height = size[0] * SHARPER, size[1] * SHARPER
    paper = COLOURS[background] if background else (255, 255, 255, 0)
    image = Image.new("RGBA", (width, height), paper)
    pen = ImageDraw.Draw(image)
    for shape, colour, x, y, radius in shapes:
        scale = radius * min(width, height)
        corners = [(x * width + u * scale, y * height + v * scale) for u, v in outline(shape)]
        pen.polygon(corners, fill=COLOURS[colour])
    return image.resize(size, Image.Resampling.LANCZOS)


def easy() -> None:
    """Drawn pictures that the demonstration model knows."""
    one = draw((512, 512), "white", [("circle", "red", 0.5, 0.5, 0.25)])
    one.convert("RGB").save(HERE / "shapes-one.png")
    two = draw(
        (640, 480), "gray", [("square", "blue", 0.17, 0.5, 0.12), ("star", "yellow", 0.66, 0.22, 0.21)]
    )
    two.convert("RGB").save(HERE / "shapes-two.png")
    shapes = [
        ("triangle", "green", 0.2, 0.2, 0.12),
        ("cross", "white", 0.5, 0.5, 0.13),
        ("circle", "orange", 0.8, 0.8, 0.13),
    ]
    draw((600, 600), "black", shapes).convert("RGB").save(HERE / "shapes-three.webp", quality=90)
    none = draw((480, 320), "green", [])
    none.convert("RGB").save(HERE / "shapes-none.png")


def photographs() -> None:
    """Photographs that are free of rights, at most 640 pixels wide."""
    for name, pixels in (
        ("astronaut", skimage.data.astronaut()),
        ("cat", skimage.data.chelsea()),
        ("coffee", skimage.data.coffee()),
    ):
        image = Image.fromarray(pixels)
        image.thumbnail((640, 640))
        image.save(HERE / f"photo-{name}.jpg", quality=88, optimize=True)


def hard() -> None:
    """Pictures that are easily shown wrong."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # shown turned right by 90 degrees
    shapes = [("triangle", "red", 0.2, 0.17, 0.12), ("star", "blue", 0.6, 0.75, 0.23)]
    upright = draw((480, 640), "yellow", shapes).convert("RGB")
    upright.transpose(Image.Transpose.ROTATE_90).save(HERE / "hard-exif-rotated.jpg", exif=exif, quality=90)

    shapes = [("circle", "blue", 0.25, 0.25, 0.22), ("square", "red", 0.82, 0.82, 0.12)]
    draw((480, 480), "white", shapes).convert("RGB").convert("CMYK").save(HERE / "hard-cmyk.jpg", quality=90)

    gray = draw((480, 480), "gray", [("star", "white", 0.5, 0.5, 0.25)]).convert("L")
    deep = numpy.asarray(gray).astype(numpy.uint16) * 257
    Image.fromarray(deep).save(HERE / "hard-16-bit.png")

    shapes = [("cross", "purple", 0.5, 0.5, 0.25)]
    flat = draw((360, 360), None, shapes).quantize(32, method=Image.Quantize.FASTOCTREE)
    flat.save(HERE / "hard-palette-alpha.png")

    frames = [draw((320, 320), "cyan", [("circle", "pink", x, 0.5, 0.23)]) for x in (0.5, 0.6, 0.7, 0.6)]
    first, *later = [frame.convert("RGB").quantize(64) for frame in frames]
    first.save(HERE / "hard-animated.gif", save_all=True, append_images=later, duration=200, loop=0)


if __name__ == "__main__":
    easy()
    photographs()
    hard()
