"""Resizes photos as JPEG codes them, brightness and colour apart: of the colour it keeps only a quarter."""

from PIL import Image, ImageFile

MODE = "YCbCr"

_YCC = 1  # of Adobe's segment: the colours are coded as brightness and two differences
_RGB = list(b"RGB")  # by these numbers of its components libjpeg tells RGB where nothing else does


def are_coded(image: ImageFile.ImageFile) -> bool:
    """Whether an opened JPEG codes brightness and colour apart, and so can be decoded without mixing them."""
    numbers = [component[0] for component in getattr(image, "layer", ())]
    return image.mode == "RGB" and numbers != _RGB and image.info.get("adobe_transform", _YCC) == _YCC


def resized(
    image: Image.Image,
    target: tuple[int, int],
    resampling: Image.Resampling,
    box: tuple[float, float, float, float] | None,
    reducing_gap: float,
) -> Image.Image:
    """A YCbCr picture in that size; its colours are those of four pixels, as 4:2:0 will keep them."""
    brightness, *colours = image.split()
    planes = [brightness.resize(target, resampling, box, reducing_gap)]
    # an odd side has no half that its every colour would stand in the middle of
    kept = (_halved(target[0]), _halved(target[1]))
    for colour in colours:
        mean = colour.resize(kept, Image.Resampling.BOX, box)
        planes.append(mean.resize(target, Image.Resampling.NEAREST))
    return Image.merge(MODE, planes)


def _halved(side: int) -> int:
    return side if side % 2 else side // 2
