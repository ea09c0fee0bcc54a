"""Thinking in the text of an answer: what is taken out, and what stays."""

import pytest
from backend_contract import KINDS, LITELLM, question
from replying import as_json, chat, replying

from vlmbatch.backends.classify.thoughts import without_thinking
from vlmbatch.errors import BadAnswerError
from vlmbatch.records import Request

ASKED = Request(images=(), prompt="What is it?")
THOUGHT = "Hm, it has fur."
FINAL = "<|start|>assistant<|channel|>final<|message|>"
TAKEN_OUT = (
    f"<think>{THOUGHT}</think>A cat.",
    f"<think>\n{THOUGHT}\n</think>\n\nA cat.",
    f"\n<THINK>{THOUGHT}</Think> A cat.\n",
    f"<thinking>{THOUGHT}</thinking>\nA cat.",
    f"<thought>{THOUGHT}</thought>A cat.",
    f"<reasoning>{THOUGHT}</reasoning>A cat.",
    f"<thoughts>{THOUGHT}</thoughts>A cat.",
    f"<mm:think>{THOUGHT}</mm:think>A cat.",
    f"<longcat_think>{THOUGHT}</longcat_think>A cat.",
    f"<seed:think>{THOUGHT}</seed:think>A cat.",
    f"\u25c1think\u25b7{THOUGHT}\u25c1/think\u25b7A cat.",
    f"[THINK]{THOUGHT}[/THINK]A cat.",
    f"<|START_THINKING|>{THOUGHT}<|END_THINKING|>A cat.",
    f"<|begin_of_thought|>{THOUGHT}<|end_of_thought|>A cat.",
    f"<|channel|>analysis<|message|>{THOUGHT}<|end|>" + FINAL + "A cat.<|return|>",
    f"<|channel|>analysis<|message|>{THOUGHT}" + FINAL + "A cat.",
    f"<|start|>assistant<|channel|>commentary<|message|>{THOUGHT}<|end|>A cat.",
    f"analysis{THOUGHT}assistantfinalA cat.",
    f"<|channel>thought\n{THOUGHT}\n<channel|>A cat.",
    f"<unused94>thought\n{THOUGHT}<unused95>A cat.",
    "<think>Hm, it </think>\n<think>has fur.</think>\nA cat.",
    "<think>Hm, <think>it has</think> fur.</think>A cat.",
    "<think>Is <think> a word? It has fur.</think>A cat.",
    f"{THOUGHT}</think>A cat.",
    f"{THOUGHT}\n</think>\n\nA cat.",
    f"{THOUGHT} </think> A cat.",
    "It has fur </think>A cat.",
    "It has fur\u25c1/think\u25b7A cat.",
    'The sign says "FUR"</think>A cat.',
)
ONLY_THOUGHTS = (
    f"<think>{THOUGHT}",
    f"<think>{THOUGHT}</think>",
    f"<think>{THOUGHT}</think>\n\n",
    f"{THOUGHT}</think>",
    f"\u25c1think\u25b7{THOUGHT}",
    f"<|channel|>analysis<|message|>{THOUGHT}",
    f"<|channel|>analysis<|message|>{THOUGHT}<|end|>",
)
LEFT_ALONE = (
    "A cat.",
    "  A cat.\n",
    "The page says: put it between <think> and </think>, then answer.",
    "The page shows the tags <think>a</think> and <b>b</b>.\n",
    "The tag </think> ends the thinking.",
    "The closing tag is `</think>`.",
    'It is written as "</think>" there.',
    "The last word is </think>",
    "</think> is the last tag on the page.",
    "Use the tag </think>\nto end it.",
    "The sign reads: </think> stop here",
    "```html\n<p>\n</think>\n```",
    "<html>\n<think>\n  text\n</think>\n</html>",
    "I think <thinking> is an element. </thinking> closes it.",
    "Reasoning: it has fur. Answer: a cat.",
    "analysis of the picture: a cat, the assistantfinal",
    "A table | <|channel|>analysis<|message|> |",
    "[thin] A cat [/think] in a list",
    "",
    "a < b > c </",
)


@pytest.mark.parametrize("text", TAKEN_OUT)
def test_thinking_at_the_start_is_taken_out(text: str) -> None:
    """Thinking between marks at the start, or before a mark at its end, is not part of the answer."""
    told = without_thinking(text, ASKED)
    assert told.answer == "A cat."
    assert "fur" in told.thinking.lower()
    assert told.warnings == (f"{len(told.thinking)} characters of thinking were removed from the answer",)


@pytest.mark.parametrize("text", ONLY_THOUGHTS)
def test_an_answer_may_be_only_thinking(text: str) -> None:
    """An answer that ends in its thinking, or has nothing after it, is empty."""
    told = without_thinking(text, ASKED)
    assert (told.answer, told.thinking.strip()) == ("", THOUGHT)


@pytest.mark.parametrize("text", LEFT_ALONE)
def test_a_text_that_mentions_thinking_stays(text: str) -> None:
    """A mark in the middle of a text, such as the text of a page about HTML, changes nothing."""
    told = without_thinking(text, ASKED)
    assert (told.answer, told.thinking, told.warnings) == (text, "", ())


@pytest.mark.parametrize(
    "text", ["<think>\n\n</think>\n\nA cat.", "</think>\n\nA cat.", "<think></think>A cat."]
)
def test_empty_thinking_is_no_warning(text: str) -> None:
    """Marks without text, which models write if thinking is off, are taken out without a warning."""
    told = without_thinking(text, ASKED)
    assert (told.answer, told.thinking.strip(), told.warnings) == ("A cat.", "", ())


def test_marks_that_the_prompt_requests_stay() -> None:
    """If the prompt or the system message mentions a mark, the answer keeps it."""
    text = "<reasoning>Fur.</reasoning><answer>A cat.</answer>"
    for request in (
        Request(images=(), prompt="Write <reasoning>, then <answer>."),
        Request(images=(), prompt="What is it?", system="First <Reasoning>...</Reasoning>."),
    ):
        assert without_thinking(text, request).answer == text
    assert without_thinking(text, ASKED).answer == "<answer>A cat.</answer>"
    asks_for_its_end = Request(images=(), prompt="End your thoughts with </think>.")
    for text in ("It has fur.</think>\nA cat.", "It has fur.\n</THINK>\n\nA cat."):
        assert without_thinking(text, asks_for_its_end).answer == text
        assert without_thinking(text, ASKED).answer == "A cat."


@pytest.mark.parametrize(
    "text",
    ["<think>" * 20_000, "<think></think>" * 7_000, "</think>" * 50_000, "<|channel|>a<|message|>" * 20_000],
)
def test_endless_marks_are_read(text: str) -> None:
    """An answer that has only marks is read, too."""
    assert len(without_thinking(text, ASKED).answer) <= len(text)


@pytest.mark.parametrize("name", ["openai", "ollama", "litellm"])
async def test_all_wires_take_thinking_out(name: str) -> None:
    """Each backend counts thinking in the text, and retries an answer of only thoughts without it."""
    texts = iter([f"<think>{THOUGHT}</think>A cat.", f"<think>{THOUGHT}"])
    kind = {**KINDS, "litellm": LITELLM}[name]
    with replying(
        lambda path, text: (
            as_json(chat(path, next(texts))) if path.endswith(("/chat", "/completions")) else None
        )
    ) as server:
        async with kind.open(server.url, model="tiny") as backend:
            await backend.preflight()
            done = await backend.complete(question())
            with pytest.raises(BadAnswerError, match="the model wrote only thinking") as caught:
                await backend.complete(question())
    assert (done.text, done.thinking) == ("A cat.", len(THOUGHT))
    if name != "litellm":  # the library itself takes it out, without a warning
        assert "15 characters of thinking were removed from the answer" in done.warnings
    assert (caught.value.kind, caught.value.change) == ("empty", "no_thinking")
