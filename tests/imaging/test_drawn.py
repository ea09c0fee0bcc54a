"""Drawn pictures: no two variants are equal, in their bytes or in their pixels."""

import io

import pytest
from PIL import Image
from pybase64 import b64decode

from vlmbatch.config.groups import ImageOptions
from vlmbatch.images import PreparedImage
from vlmbatch.imaging.drawn import FACTORS, USUAL_SIZE, VARIANTS, Varied, drawn_scene
from vlmbatch.imaging.prepare import prepare


def pixels(picture: PreparedImage) -> bytes:
    """The decoded pixels of the picture that is sent."""
    with Image.open(io.BytesIO(b64decode(picture.data))) as image:
        return image.tobytes()


def test_a_scene_is_a_photo_in_size_and_content() -> None:
    """The same number gives the same JPEG of 1024x768 pixels, and another number gives another one."""
    assert drawn_scene(1) == drawn_scene(1) != drawn_scene(2)
    with Image.open(io.BytesIO(drawn_scene(1))) as image:
        assert (image.format, image.size) == ("JPEG", USUAL_SIZE)
    assert len(drawn_scene(1)) > 50_000


@pytest.mark.parametrize("quality", [85, 100])
def test_each_variant_has_other_pixels(quality: int) -> None:
    """Each factor alone changes the decoded pixels, so that no cache of pictures finds a variant."""
    varied = Varied(prepare(drawn_scene(3), ImageOptions(quality=quality, max_size=640)))
    numbers = [0, *(1 << place for place in range(FACTORS)), VARIANTS - 1]
    assert len({pixels(varied.variant(number)) for number in numbers}) == len(numbers)


def test_variants_differ_even_at_the_lowest_quality() -> None:
    """The factors of the lowest quality cannot become larger, and yet all variants differ in their bytes."""
    varied = Varied(prepare(drawn_scene(3), ImageOptions(quality=1, max_size=320)))
    assert len({varied.variant(number).data for number in (*range(100), VARIANTS - 1)}) == 101
