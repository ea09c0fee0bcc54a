"""Encodes a picture as the JPEG that is sent."""

from io import BytesIO

from PIL import Image

from vlmbatch.imaging.decode import OutOfMemory

MEDIA_TYPE = "image/jpeg"


def encode(image: Image.Image, quality: int) -> bytes:
    """The RGB or YCbCr picture as JPEG, without metadata; the same picture always gives the same bytes.

    It uses 4:2:0 and no `optimize`, which takes 2.5 times as long and saves 1 % of the size.

    Raises:
        ImageError: too_large, if memory does not suffice.
    """
    image.info = {}  # save() would write a comment from here
    out = BytesIO()
    try:
        image.save(out, "JPEG", quality=quality)
    # the codec reads and writes memory only, so its OSError means that memory ran out
    except (MemoryError, OSError) as error:
        raise OutOfMemory from error
    return out.getvalue()
