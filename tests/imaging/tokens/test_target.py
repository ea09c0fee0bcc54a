"""The size that is sent: laws for all families, and the steps and limits of single ones."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vlmbatch.imaging.tokens.family import LONGEST, MUCH_CHEAPER, NEARLY, Family, Size, within
from vlmbatch.imaging.tokens.names import (
    FAMILIES,
    GEMMA_3,
    GEMMA_4,
    IDEFICS3,
    INTERNVL,
    LLAMA_3_2,
    LLAMA_4,
    LLAVA_1_5,
    LLAVA_1_6,
    MINICPM_V,
    MISTRAL_3,
    PIXTRAL,
    QWEN2_VL,
    QWEN3_VL,
    SMOLVLM,
)
from vlmbatch.imaging.tokens.patches import BegunPatches, FilledPatches, NearestPatches
from vlmbatch.imaging.tokens.slices import Enlarged

MOST_RATIO = 100  # thinner pictures are padded before they are sent (imaging/geometry.py)


@st.composite
def pictures(draw: st.DrawFn, most: int = 12_000) -> Size:
    """Any size, and the aspects of grids of tiles, within a pixel."""
    if draw(st.booleans()):
        size = draw(st.tuples(st.integers(1, most), st.integers(1, most)))
    else:
        wide, high = draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
        times = draw(st.integers(1, most // 9))
        off = draw(st.tuples(st.integers(0, 1), st.integers(0, 1)))
        size = wide * times + off[0], high * times + off[1]
    long = max(size)
    return max(size[0], -(-long // MOST_RATIO)), max(size[1], -(-long // MOST_RATIO))


families = st.sampled_from(FAMILIES)
budgets = st.none() | st.integers(1, 8000)
many = settings(max_examples=300, deadline=None)


def patch_of(family: Family) -> int:
    """The allowed error in pixels of a side, since some models need whole patches."""
    rule = family.rule
    return rule.patch if isinstance(rule, NearestPatches | BegunPatches | FilledPatches) else 1


def usual(size: Size) -> Size:
    """The size with the default limit, a longest side of 1024."""
    return within(size, (LONGEST, LONGEST))


@many
@given(families, pictures(), budgets)
def test_a_picture_is_never_enlarged(family: Family, size: Size, budget: int | None) -> None:
    """No side of the sent size is longer than that of the picture."""
    width, height = family.target(size, budget)
    assert 1 <= width <= size[0]
    assert 1 <= height <= size[1]


@many
@given(families, pictures(), budgets)
def test_the_aspect_is_kept(family: Family, size: Size, budget: int | None) -> None:
    """The aspect is kept to a pixel, to a patch, or for SmolVLM and Idefics3 to 1/32."""
    target = family.target(size, budget)
    long, short = target if size[0] >= size[1] else target[::-1]
    exact = long * min(size) / max(size)
    assert exact * (NEARLY if isinstance(family.rule, Enlarged) else 1) - patch_of(family) <= short
    assert short <= exact + patch_of(family)


@many
@given(families, pictures())
def test_auto_costs_no_more_than_the_usual_size(family: Family, size: Size) -> None:
    """Without a budget, a picture costs no family more tokens than a longest side of 1024."""
    assert family.tokens(family.target(size)) <= family.tokens(usual(size))


@many
@given(families, pictures(), st.integers(1, 20_000))
def test_a_budget_is_kept_or_cannot_be(family: Family, size: Size, budget: int) -> None:
    """The sent size costs at most the budget, or no size worth sending costs less."""
    cost = family.tokens(family.target(size, budget))
    others = [family.tokens(other) for other in family.rule.sizes(size) if family.rule.sees_all(other)]
    assert cost <= max(budget, min(others, default=cost))


@many
@given(families, pictures(), st.integers(1, 8000), st.integers(0, 4000))
def test_more_tokens_never_show_less(family: Family, size: Size, budget: int, more: int) -> None:
    """A larger budget sends at least as many pixels, except for those that a cheaper step saves."""
    width, height = family.target(size, budget + more)
    less_width, less_height = family.target(size, budget)
    assert width * height >= NEARLY**4 * less_width * less_height


@many
@given(families, pictures(), budgets)
@example(MISTRAL_3, (6156, 1537), None)  # 1024 costs less for the rounded aspect
def test_a_target_size_stays_unchanged(family: Family, size: Size, budget: int | None) -> None:
    """The target of a target is itself, if the budget could be kept."""
    target = family.target(size, budget)
    if budget is None or family.tokens(target) <= budget:
        assert family.target(target, budget) == target


@many
@given(families, pictures(), budgets)
@example(GEMMA_4, (8293, 7164), None)  # costs less with the aspect of 1024 x 885
def test_no_pixel_is_sent_that_the_model_discards(family: Family, size: Size, budget: int | None) -> None:
    """The model uses all sent pixels, except for InternVL at the usual size, where its grid may change."""
    target = family.target(size, budget)
    assert family.rule.sees_all(target) or (family is INTERNVL and target == usual(target))


@many
@given(families, pictures(LONGEST))
def test_a_small_picture_stays_as_it_is(family: Family, size: Size) -> None:
    """A small picture is unchanged, unless the model shrinks it or nearly the same size is much cheaper."""
    target = family.target(size)
    if target != size and max(size) <= LONGEST and family.rule.sees_all(size):
        assert family.tokens(target) <= MUCH_CHEAPER * family.tokens(size)
        assert all(NEARLY**2 * side <= sent for side, sent in zip(size, target, strict=True))


@pytest.mark.parametrize(
    ("family", "size", "sent"),
    [
        (QWEN2_VL, (4000, 3000), (1008, 756)),
        (QWEN2_VL, (3000, 4000), (756, 1008)),
        (QWEN2_VL, (1030, 700), (1030, 700)),  # 37 columns, as 1024 has
        (QWEN3_VL, (4000, 3000), (1024, 768)),
        (PIXTRAL, (6000, 4000), (1024, 688)),
        (MISTRAL_3, (1040, 780), (1036, 756)),  # 784 would be larger than the picture
        (GEMMA_3, (4000, 3000), (896, 672)),
        (GEMMA_4, (4000, 3000), (912, 672)),
        (GEMMA_4, (4871, 611), (2267, 284)),  # it would resize 47 x 5 patches to 51 x 5
        (LLAVA_1_5, (3000, 4000), (336, 448)),
        (LLAVA_1_5, (339, 337), (338, 336)),
        (LLAVA_1_6, (4000, 3000), (672, 504)),
        (INTERNVL, (4000, 3000), (1792, 1344)),
        (INTERNVL, (1920, 1080), (796, 448)),
        (SMOLVLM, (4000, 3000), (2048, 1536)),
        (LLAMA_3_2, (4000, 3000), (1119, 839)),
        (LLAMA_4, (4000, 3000), (1344, 1008)),
        (MINICPM_V, (4000, 3000), (1034, 775)),
    ],
)
def test_the_size_without_a_budget(family: Family, size: Size, sent: Size) -> None:
    """Patches are whole and tiles are filled, at no more tokens than a longest side of 1024 costs."""
    assert family.target(size) == sent


@pytest.mark.parametrize(
    ("family", "size", "sent", "tokens"),
    [
        (LLAMA_3_2, (570, 570), (559, 559), (6404, 1601)),
        (LLAMA_4, (340, 340), (336, 336), (727, 147)),
        (SMOLVLM, (1600, 1201), (1600, 1200), (1127, 862)),
        (SMOLVLM, (1201, 1600), (1200, 1600), (1127, 863)),
        (IDEFICS3, (4000, 3010), (1456, 1092), (2912, 2227)),
        (MINICPM_V, (450, 450), (448, 448), (202, 69)),
        (LLAVA_1_6, (340, 340), (336, 336), (2928, 1176)),
    ],
)
def test_a_size_just_above_a_step_goes_below_it(
    family: Family, size: Size, sent: Size, tokens: tuple[int, int]
) -> None:
    """A few pixels that would cost another row of tiles are not sent, with a budget or without."""
    for budget in (None, 10_000):
        assert family.target(size, budget) == sent
    assert (family.tokens(size), family.tokens(sent)) == tokens


@pytest.mark.parametrize(
    ("family", "budget", "sent", "tokens"),
    [
        (QWEN2_VL, 500, (700, 532), 475),
        (QWEN2_VL, 20_000, (4000, 3000), 15301),
        (QWEN3_VL, 500, (800, 608), 475),
        (MISTRAL_3, 1500, (1232, 924), 1485),
        (LLAVA_1_6, 1500, (448, 336), 1368),
        (LLAMA_3_2, 2000, (559, 419), 1601),
        (LLAMA_4, 1500, (1008, 756), 1452),
        (MINICPM_V, 700, (1551, 1163), 665),
        # these cannot go so low
        (GEMMA_3, 100, (896, 672), 256),
        (INTERNVL, 1000, (1792, 1344), 3330),
        (SMOLVLM, 500, (2048, 1536), 862),
        (LLAVA_1_6, 1000, (448, 336), 1368),
        (QWEN3_VL, 10, (320, 256), 80),
    ],
)
def test_the_size_with_a_budget(family: Family, budget: int, sent: Size, tokens: int) -> None:
    """A photo of 12 megapixels is sent as large as the budget allows, or else at the least cost."""
    assert family.target((4000, 3000), budget) == sent
    assert family.tokens(sent) == tokens


def test_a_large_budget_does_not_send_discarded_pixels() -> None:
    """With any budget, no side is longer than the model uses."""
    sent = [family.target((9000, 9000), 10**6) for family in (GEMMA_3, PIXTRAL, INTERNVL, LLAMA_4, SMOLVLM)]
    assert sent == [(896, 896), (1024, 1024), (1344, 1344), (1344, 1344), (2048, 2048)]
