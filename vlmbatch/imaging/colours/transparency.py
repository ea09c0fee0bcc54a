"""Warns if nothing of a picture with transparency is visible on white."""

from PIL import Image

_INVISIBLE = 4  # levels of 255; resizing alone shifts by up to 3


def check_visible(image: Image.Image, on_white: Image.Image, frames: int, warnings: list[str]) -> None:
    """Warn if `image`, in mode RGBA, became one area of one colour when it was put on white."""
    if image.mode != "RGBA" or any(high - low > _INVISIBLE for low, high in _ranges(on_white)):
        return
    (least, most), what = _ranges(image)[3], "its first frame" if frames > 1 else "it"
    if most == 0:
        aim = (
            "another frame, type: magick 'FILE[1]'"
            if frames > 1
            else "its hidden colours, type: magick FILE -alpha off"
        )
        warnings.append(
            f"nothing of {what} is visible, since all pixels are transparent; to send {aim} OUT.png"
        )
    elif least < most:  # else it is one colour of one transparency
        warnings.append(
            f"nothing of {what} is visible on white, since its pixels are white;"
            " to put it on black first, type: magick FILE -background black -flatten OUT.png"
        )


def _ranges(image: Image.Image) -> tuple[tuple[int, int], ...]:
    """The least and the largest value of each channel."""
    return image.getextrema()  # type: ignore[return-value]  # of several channels
