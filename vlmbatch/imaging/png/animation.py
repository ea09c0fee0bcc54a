"""Decodes the first frame of an animated PNG, which may hide a still picture."""

from PIL import Image, ImageFile, PngImagePlugin


def has_still(image: ImageFile.ImageFile) -> bool:
    """Whether a PNG has a still picture that is no frame of its animation: only old viewers show it."""
    return isinstance(image, PngImagePlugin.PngImageFile) and bool(image.default_image)


def first_frame(image: ImageFile.ImageFile) -> Image.Image:
    """The decoded picture of an opened file; of an animated PNG its first frame, on a transparent canvas."""
    image.load()
    if not isinstance(image, PngImagePlugin.PngImageFile) or not image.default_image:
        return image
    image.seek(1)
    image.blend_op = PngImagePlugin.Blend.OP_SOURCE  # Pillow would blend it with the still picture
    image.load()
    box = image.info["bbox"]
    if box == (0, 0, *image.size):
        return image
    canvas = Image.new("RGBA", image.size)
    canvas.paste(image.crop(box).convert("RGBA"), box)
    return canvas
