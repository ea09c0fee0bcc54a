"""Puts the first frame of a GIF on its screen, which may be larger."""

from PIL import GifImagePlugin, Image


def on_white_screen(image: Image.Image) -> Image.Image:
    """The decoded image; in a GIF whose first frame has no transparency, white around that frame.

    Nothing is drawn there (GIF89a section 18), and browsers leave it transparent. Pillow does so only in a
    GIF with a transparent colour; otherwise it fills with the first colour of the palette.
    """
    if not isinstance(image, GifImagePlugin.GifImageFile) or image.has_transparency_data:
        return image
    width, height = image.size
    left, top, right, bottom = image.dispose_extent or (0, 0, width, height)
    if (left, top, right, bottom) == (0, 0, width, height):
        return image
    screen = image.convert("L" if image.mode == "L" else "RGB")
    for around in (
        (0, 0, width, top),
        (0, bottom, width, height),
        (0, top, left, bottom),
        (right, top, width, bottom),
    ):
        screen.paste("white", around)
    return screen
