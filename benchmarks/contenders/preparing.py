"""Two ways in which scripts prepare an image with Pillow: the usual one and the better one."""

from base64 import b64encode
from io import BytesIO
from pathlib import Path

from PIL import Image
from task import MAX_SIZE, QUALITY


def usual(file: Path, *, as_is: bool = False) -> bytes:
    """Open, convert to RGB, shrink with Lanczos, save as JPEG; or only read."""
    if as_is:
        return file.read_bytes()
    with Image.open(file) as opened:
        image = opened.convert("RGB")
    if max(image.size) > MAX_SIZE:
        scale = MAX_SIZE / max(image.size)
        size = (round(image.width * scale), round(image.height * scale))
        image = image.resize(size, Image.Resampling.LANCZOS)
    return _jpeg(image)


def better(file: Path) -> bytes:
    """As in Pillow's documentation: `thumbnail` shrinks before it converts, and may decode smaller."""
    with Image.open(file) as image:
        image.thumbnail((MAX_SIZE, MAX_SIZE))
        return _jpeg(image.convert("RGB"))


def text(data: bytes) -> str:
    """Base64, as both wires need it in the end."""
    return b64encode(data).decode()


def _jpeg(image: Image.Image) -> bytes:
    out = BytesIO()
    image.save(out, "JPEG", quality=QUALITY)
    return out.getvalue()
