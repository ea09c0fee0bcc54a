"""Token counts, compared with the models' own processors and with docs/image-tokens.md.

image_token_counts.csv has the counts of transformers 5.24.0 for pictures of 80 sizes, with the settings of
the checkpoints in names.py: by _get_num_multimodal_tokens of the processors that have it; for Llama
3.2 as 1601 for each tile of get_optimal_tiled_canvas; for Llama 4 by the text of _prompt_split_image for
get_best_fit; for MiniCPM-V 4.6 by get_sliced_grid, find_best_resize, get_refine_size and the processor's
marks; and for MiniCPM-V 2.6 by get_slice_image_placeholder of the model's own image_processing_minicpmv.py,
a mark being one token.
"""

import csv
from pathlib import Path

import pytest
from documents import page, section, table

from vlmbatch.imaging.tokens.family import Family
from vlmbatch.imaging.tokens.names import FAMILIES

COUNTS = Path(__file__).with_name("image_token_counts.csv")
PHOTO = (4000, 3000)
by_name = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)


@by_name
def test_tokens_are_those_of_the_models_own_processor(family: Family) -> None:
    """For every size in the table, the count of each family equals that of the real processor."""
    with COUNTS.open(newline="", encoding="ascii") as file:
        rows = list(csv.DictReader(file))
    real = {(int(row["width"]), int(row["height"])): int(row[family.name]) for row in rows}
    assert len(real) == 80
    assert {size: family.tokens(size) for size in real} == real


@by_name
def test_the_page_has_the_cost_of_a_photo(family: Family) -> None:
    """The first table of docs/image-tokens.md has the right figures for a photo of 12 megapixels."""
    rows = {row[0]: row[1:] for row in table(section(page("docs/image-tokens.md"), "## What a photo costs"))}
    target = family.target(PHOTO)
    assert rows[family.name][1:] == [
        f"{family.tokens(PHOTO):,}",
        f"{family.tokens((1024, 768)):,}",
        f"{family.tokens(target):,}",
        f"{target[0]} x {target[1]}",
    ]


def test_the_page_lists_each_family_once() -> None:
    """Both tables of docs/image-tokens.md list all families once, and no other."""
    text = page("docs/image-tokens.md")
    names = sorted(family.name for family in FAMILIES)
    for heading in ("## What a photo costs", "## How each family counts"):
        listed = [name for row in table(section(text, heading)) for name in row[0].split("`, `")]
        assert sorted(listed) == names, heading
