"""The family of a model by its name or architecture."""

import pytest

from vlmbatch.imaging.tokens import family_of

KNOWN = {
    "qwen2-vl": [
        "qwen2.5vl", "qwen2.5vl:7b", "qwen2.5vl:72b-q4_K_M", "Qwen/Qwen2.5-VL-7B-Instruct",
        "Qwen/Qwen2.5-VL-72B-Instruct-AWQ", "Qwen/Qwen2-VL-2B-Instruct-GPTQ-Int4", "qwen2vl",
        "hf.co/ggml-org/Qwen2.5-VL-3B-Instruct-GGUF:Q4_K_M", "unsloth/Qwen2.5-VL-7B-Instruct-bnb-4bit",
        "bartowski/Qwen_Qwen2.5-VL-7B-Instruct-GGUF", "models/Qwen2.5-VL-7B-Instruct-Q4_K_M.gguf",
        r"C:\models\qwen2.5-vl-7b.gguf", "registry.ollama.ai/library/qwen2.5vl:3b",
        "mlx-community/Qwen2.5-VL-3B-Instruct-4bit",
    ],
    "qwen3-vl": [
        "qwen3-vl", "qwen3-vl:8b-instruct-q4_K_M", "qwen3-vl:235b-cloud", "Qwen/Qwen3-VL-8B-Instruct-FP8",
        "Qwen/Qwen3-VL-30B-A3B-Thinking", "qwen3.5:4b", "Qwen/Qwen3.5-27B", "qwen3.6-35b-a3b",
    ],
    "pixtral": [
        "mistral-community/pixtral-12b", "mistralai/Pixtral-12B-2409",
        "mistralai/Pixtral-Large-Instruct-2411",
    ],
    "mistral-3": [
        "mistral-small3.1", "mistral-small3.2:24b-instruct-2506-q4_K_M",
        "mistralai/Mistral-Small-3.1-24B-Instruct-2503",
        "mistralai_Mistral-Small-3.2-24B-Instruct-2506-Q5_K_M.gguf", "ministral-3:8b",
        "mistralai/Ministral-3-14B-Instruct-2512", "mistral-large-3:675b-cloud",
    ],
    "gemma-3": [
        "gemma3", "gemma3:latest", "gemma3:4b", "gemma3:27b-it-qat", "google/gemma-3-4b-it",
        "google_gemma-3-12b-it-Q4_K_M.gguf", "unsloth/gemma-3-27b-it-GGUF:Q8_0",
        "RedHatAI/gemma-3-12b-it-quantized.w4a16",
    ],
    "gemma-3n": [
        "google/gemma-3n-E4B-it", "gemma3n:e2b",
    ],
    "gemma-4": [
        "gemma4", "gemma4:31b-cloud", "google/gemma-4-26b-a4b-it", "ggml-org/gemma-4-E2B-it-GGUF",
    ],
    "llava-1.5": [
        "llava-hf/llava-1.5-7b-hf", "liuhaotian/llava-v1.5-13b", "llava:7b-v1.5-q4_0", "llava:13b-v1.5",
        "bakllava", "bakllava:7b", "llava-llama3", "llava-llama3:8b",
        "xtuner/llava-llama-3-8b-v1_1-transformers", "llava-phi3", "mys/ggml_llava-v1.5-7b",
    ],
    "llava-1.6": [
        "llava", "llava:latest", "llava:7b", "llava:34b-v1.6-q4_K_M", "llava-hf/llava-v1.6-mistral-7b-hf",
        "llava-hf/llava-v1.6-34b-hf", "cjpais/llava-1.6-mistral-7b-gguf",
    ],
    "llama-3.2-vision": [
        "llama3.2-vision", "llama3.2-vision:90b", "meta-llama/Llama-3.2-11B-Vision-Instruct",
        "unsloth/Llama-3.2-90B-Vision-Instruct-bnb-4bit",
        "neuralmagic/Llama-3.2-11B-Vision-Instruct-FP8-dynamic",
    ],
    "llama-4": [
        "llama4", "llama4:scout", "meta-llama/Llama-4-Scout-17B-16E-Instruct",
        "unsloth/Llama-4-Maverick-17B-128E-Instruct-FP8",
    ],
    "internvl": [
        "OpenGVLab/InternVL3-8B", "OpenGVLab/InternVL3-8B-hf", "OpenGVLab/InternVL2_5-26B-MPO-AWQ",
        "OpenGVLab/InternVL2-1B", "OpenGVLab/InternVL3_5-38B", "ggml-org/InternVL3-8B-Instruct-GGUF",
        "internvl3.5:8b",
    ],
    "idefics3": [
        "HuggingFaceM4/Idefics3-8B-Llama3",
    ],
    "smolvlm": [
        "HuggingFaceTB/SmolVLM-256M-Instruct", "HuggingFaceTB/SmolVLM2-500M-Video-Instruct",
        "hf.co/ggml-org/SmolVLM-256M-Instruct-GGUF",
        "hf.co/ggml-org/SmolVLM2-256M-Video-Instruct-GGUF:Q8_0",
    ],
    "smolvlm-2.2b": [
        "HuggingFaceTB/SmolVLM-Instruct", "HuggingFaceTB/SmolVLM2-2.2B-Instruct",
        "ggml-org/SmolVLM-Instruct-GGUF",
    ],
    "minicpm-v": [
        "minicpm-v", "minicpm-v:8b", "minicpm-v:8b-2.6-q4_K_M", "openbmb/MiniCPM-V-2_6",
        "openbmb/MiniCPM-V-2_6-gguf", "openbmb/MiniCPM-V-4", "openbmb/MiniCPM-V-4_5-AWQ",
        "openbmb/minicpm-v4.5:8b", "openbmb/MiniCPM-o-2_6", "openbmb/minicpm-o2.6",
    ],
    "minicpm-v-4.6": [
        "openbmb/MiniCPM-V-4_6", "minicpm-v4.6",
    ],
}  # fmt: skip

UNKNOWN = [
    "", "gpt-4o", "llama3", "llama3.2:3b", "meta-llama/Llama-3.2-3B-Instruct", "llama-40b", "qwen2.5:7b",
    "qwen3:8b", "qwen3.50", "Qwen/Qwen2.5-Omni-7B", "gemma2:9b", "gemma3:1b", "gemma3:270m",
    "google/gemma-3-1b-it", "google/gemma-4b-it", "medgemma-4b-it", "mistral-small", "mistral-small:24b",
    "ministral-3b-instruct", "mistral:7b", "mistral-large-2411", "llava-hf/vip-llava-7b-hf",
    "llava-hf/llava-onevision-qwen2-7b-ov-hf", "llava-hf/LLaVA-NeXT-Video-7B-hf",
    "LanguageBind/Video-LLaVA-7B-hf", "video_llava", "OpenGVLab/Mono-InternVL-2B",
    "OpenGVLab/InternVL-Chat-V1-2", "OpenGVLab/InternVL3_5-8B-Flash", "OpenGVLab/InternVL4-8B",
    "openbmb/MiniCPM-V-4_7", "openbmb/MiniCPM-Llama3-V-2_5", "openbmb/MiniCPM-V-5", "minicpm3:4b",
    "HuggingFaceM4/idefics2-8b", "HuggingFaceTB/SmolLM2-135M", "moondream", "vikhyatk/moondream2",
    "granite3.2-vision", "deepseek-ocr", "qwen2.5-vlx", "models/ggml-model-q4_K_M.gguf", "my-captions",
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "family"), [(name, family) for family, names in KNOWN.items() for name in names]
)
def test_names_of_models(name: str, family: str) -> None:
    """Names at Ollama, ids at vLLM, files and quantised copies are recognised by their family's name."""
    found = family_of(name)
    assert found is not None
    assert found.name == family


@pytest.mark.parametrize("name", UNKNOWN)
def test_names_without_a_family(name: str) -> None:
    """A text model, a model of another family or of an unknown version belongs to no family."""
    assert family_of(name) is None


@pytest.mark.parametrize(
    ("architecture", "family"),
    [
        ("qwen2vl", "qwen2-vl"),
        ("qwen25vl", "qwen2-vl"),
        ("qwen3vl", "qwen3-vl"),
        ("qwen3vlmoe", "qwen3-vl"),
        ("qwen35", "qwen3-vl"),
        ("qwen35moe", "qwen3-vl"),
        ("mistral3", "mistral-3"),
        ("gemma3", "gemma-3"),
        ("gemma3n", "gemma-3n"),
        ("gemma4", "gemma-4"),
        ("mllama", "llama-3.2-vision"),
        ("llama4", "llama-4"),
    ],
)
def test_an_architecture_counts_more_than_a_name(architecture: str, family: str) -> None:
    """A model with a custom or misleading name is recognised by its architecture."""
    for name in ("my-captions", "llava:7b", "pixtral-12b"):
        found = family_of(name, architecture)
        assert found is not None
        assert found.name == family


@pytest.mark.parametrize("architecture", [None, "", "clip", "llama", "qwen2", "phi3"])
def test_an_architecture_with_several_vision_encoders_leaves_it_to_the_name(architecture: str | None) -> None:
    """The architecture of the language model alone does not decide the family."""
    found = family_of("minicpm-v:8b", architecture)
    assert found is not None
    assert found.name == "minicpm-v"
    assert family_of("my-captions", architecture) is None
