"""Finds the family of a model by its architecture, or by its name at Ollama, at vLLM or of a file.

An uncertain name belongs to no family, since a wrong size would be worse than the usual one.
"""

import re

from vlmbatch.imaging.tokens.family import Family
from vlmbatch.imaging.tokens.patches import BegunPatches, FilledPatches, NearestPatches
from vlmbatch.imaging.tokens.slices import Enlarged, Slices
from vlmbatch.imaging.tokens.tiles import BestResolution, NearestAspect, OneSquare, SmallestCanvas

QWEN2_VL = Family(
    name="qwen2-vl", rule=NearestPatches(patch=28, least_pixels=4 * 28**2, most_pixels=16384 * 28**2)
)
QWEN3_VL = Family(
    name="qwen3-vl", rule=NearestPatches(patch=32, least_pixels=64 * 32**2, most_pixels=16384 * 32**2)
)
PIXTRAL = Family(name="pixtral", rule=BegunPatches(patch=16, longest=1024))
MISTRAL_3 = Family(name="mistral-3", rule=BegunPatches(patch=28, longest=1540))
GEMMA_3 = Family(name="gemma-3", rule=OneSquare(side=896, count=256))
GEMMA_3N = Family(name="gemma-3n", rule=OneSquare(side=768, count=256))
GEMMA_4 = Family(name="gemma-4", rule=FilledPatches(patch=48, most=280))
LLAVA_1_5 = Family(name="llava-1.5", rule=OneSquare(side=336, count=576, cuts=True))
LLAVA_1_6 = Family(
    name="llava-1.6",
    rule=BestResolution(tile=336, patch=14, canvases=((2, 1), (1, 2), (2, 2), (1, 3), (3, 1))),
)
LLAMA_3_2 = Family(name="llama-3.2-vision", rule=SmallestCanvas(tile=560, most=4, count=1601, spare=1))
LLAMA_4 = Family(name="llama-4", rule=SmallestCanvas(tile=336, most=16, count=144, overview=True))
INTERNVL = Family(name="internvl", rule=NearestAspect(tile=448, most=12, count=256))
IDEFICS3 = Family(name="idefics3", rule=Enlarged(tile=364, longest=4 * 364, count=169))
SMOLVLM = Family(name="smolvlm", rule=Enlarged(tile=512, longest=4 * 512, count=64))
SMOLVLM_2B = Family(name="smolvlm-2.2b", rule=Enlarged(tile=384, longest=4 * 384, count=81))
MINICPM_V = Family(name="minicpm-v", rule=Slices(tile=448, most=9, count=64))
MINICPM_V_4_6 = Family(name="minicpm-v-4.6", rule=Slices(tile=448, most=9, patch=56))

FAMILIES = (
    *(QWEN2_VL, QWEN3_VL, PIXTRAL, MISTRAL_3, GEMMA_3, GEMMA_3N, GEMMA_4, LLAVA_1_5, LLAVA_1_6),
    *(LLAMA_3_2, LLAMA_4, INTERNVL, IDEFICS3, SMOLVLM, SMOLVLM_2B, MINICPM_V, MINICPM_V_4_6),
)

ARCHITECTURES = {
    "qwen2vl": QWEN2_VL,
    "qwen25vl": QWEN2_VL,
    "qwen3vl": QWEN3_VL,
    "qwen3vlmoe": QWEN3_VL,
    "qwen35": QWEN3_VL,
    "qwen35moe": QWEN3_VL,
    "mistral3": MISTRAL_3,
    "gemma3": GEMMA_3,
    "gemma3n": GEMMA_3N,
    "gemma4": GEMMA_4,
    "mllama": LLAMA_3_2,
    "llama4": LLAMA_4,
}
"""Families by details.family of Ollama's /api/show, or general.architecture of a .gguf file.

Language models that are combined with several vision encoders (llama, qwen2, phi3), and the encoder itself
(clip), identify no family.
"""

AT_OLLAMA = {"gemma3": GEMMA_3, "llava": LLAVA_1_6, "minicpm-v": MINICPM_V}
"""Names of Ollama's library without a version. A tag may name another one: NAMES and TEXT_ONLY come first."""

TEXT_ONLY = re.compile(r"gemma-?3[-:](1b|270m)")
"""Names that look like a vision family but belong to text models."""

NAMES: tuple[tuple[str, Family], ...] = (
    (r"qwen2([._]5)?-?vl", QWEN2_VL),
    (r"qwen3-?vl", QWEN3_VL),
    (r"qwen3[._][56]", QWEN3_VL),
    (r"pixtral", PIXTRAL),
    (r"(mistral-small-?3\.[12]|ministral-3|mistral-large-3)", MISTRAL_3),
    (r"gemma-?3[-:](4|12|27)b", GEMMA_3),
    (r"gemma-?3n", GEMMA_3N),
    (r"gemma-?4", GEMMA_4),
    (r"(bakllava|llava-llama-?3|llava-phi-?3|llava-v?1\.5|llava:.*v1\.5)", LLAVA_1_5),
    (r"llava-v?1\.6", LLAVA_1_6),
    (r"llama-?3\.2-(\d+b-)?vision", LLAMA_3_2),
    (r"llama-?4", LLAMA_4),
    # not the flash models of 3.5, which choose a resolution for each tile
    (r"internvl(2|2[._]5|3|3[._]5)(?!.*flash)", INTERNVL),
    (r"idefics3", IDEFICS3),
    (r"smolvlm2?-(256|500)m", SMOLVLM),
    (r"(smolvlm2-2\.2b|smolvlm-(instruct|base|synthetic))", SMOLVLM_2B),
    (r"minicpm-[vo]-?(2[._]6|4([._][05])?)", MINICPM_V),
    (r"minicpm-v-?4[._]6", MINICPM_V_4_6),
)
"""The start of the last part of a model's name, in lower case, up to the end of a word or a version."""


def family_of(model: str, architecture: str | None = None) -> Family | None:
    """The family of a model, or None if it is not certain.

    `model` is a name like `qwen2.5vl:7b-q4_K_M`, `hf.co/owner/Repo-GGUF:Q4_K_M`,
    `Qwen/Qwen2.5-VL-7B-Instruct` or a path to a .gguf file. `architecture` is the one that the endpoint
    reports; a known architecture takes precedence over the name.
    """
    known = ARCHITECTURES.get((architecture or "").lower())
    if known is not None:
        return known
    name = re.split(r"[/\\]", model.strip().lower())[-1]
    if TEXT_ONLY.match(name):
        return None
    for beginning, family in NAMES:
        # an owner may come first, as in Qwen_Qwen2.5-VL-7B-Instruct-GGUF
        if re.match(rf"([a-z0-9-]+[._])?{beginning}(?![a-z0-9]|[._]\d)", name):
            return family
    return AT_OLLAMA.get(name.partition(":")[0])
