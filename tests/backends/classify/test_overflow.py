"""The numbers in refusals of servers whose context is full."""

import json

import pytest

from vlmbatch.backends.classify import classify_error
from vlmbatch.backends.classify.overflow import overflow_in
from vlmbatch.errors import BadAnswerError, FatalBackendError, Overflow

# message, then the tokens of input, context and answer
WORDINGS = (
    # vLLM
    (
        "This model's maximum context length is 8192 tokens. However, you requested 512 output "
        "tokens and your prompt contains 8000 input tokens, for a total of 8512 tokens.",
        (8000, 8192, 512),
    ),
    (
        "'max_tokens' or 'max_completion_tokens' is too large: 512. This model's maximum context "
        "length is 8,192 tokens and your request has 8,000 input tokens (512 > 8,192 - 8,000).",
        (8000, 8192, 512),
    ),
    ("The decoder prompt (length 9000) is longer than the maximum model length of 8192.", (9000, 8192, None)),
    (
        "The prompt (total length 25938) is too long to fit into the model (context length 4096). "
        "Make sure that `max_model_len` is no smaller than the number of text tokens plus multimodal tokens.",
        (25938, 4096, None),
    ),
    (
        "You passed 8000 input tokens and requested 512 output tokens. However, the model's context "
        "length is only 8192 tokens, resulting in a maximum input length of 7680 tokens.",
        (8000, 8192, 512),
    ),
    ("Input length (419) exceeds model's maximum context length (300).", (419, 300, None)),
    (
        "The decoder prompt contains a(n) image item with length 4641, which exceeds the "
        "pre-allocated encoder cache size 3721. Please reduce the input size or increase the encoder "
        "cache size by setting --limit-mm-per-prompt at startup.",
        (4641, 3721, 0),
    ),
    (
        "The decoder prompt contains a(n) image item with 4230 embedding tokens, which exceeds the "
        "pre-allocated encoder cache size 4225. Please reduce the input size or increase the encoder "
        "cache size by setting --limit-mm-per-prompt at startup.",
        (4230, 4225, 0),
    ),
    # OpenAI, OpenRouter, SGLang
    (
        "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens (4488 in the "
        "messages, 512 in the completion). Please reduce the length of the messages or completion.",
        (4488, 4096, 512),
    ),
    (
        "This model's maximum context length is 128000 tokens. However, your messages resulted in "
        "130211 tokens.",
        (130211, 128000, None),
    ),
    (
        "This endpoint's maximum context length is 32768 tokens. However, you requested about 40000 "
        "tokens (39488 of text input, 512 in the output).",
        (39488, 32768, 512),
    ),
    (
        "Requested token count exceeds the model's maximum context length of 4096 tokens. You "
        "requested a total of 5000 tokens: 4488 tokens from the input messages and 512 tokens for "
        "the completion.",
        (4488, 4096, 512),
    ),
    ("The input (5000 tokens) is longer than the model's context length (4096 tokens).", (5000, 4096, None)),
    # Anthropic, Gemini, xAI, Mistral, Groq
    ("prompt is too long: 250017 tokens > 200000 maximum", (250017, 200000, None)),
    ("prompt is too long: 4096 > 2048", (4096, 2048, None)),
    (
        "input length and `max_tokens` exceed context limit: 188240 + 21333 > 200000, decrease input "
        "length or `max_tokens` and try again",
        (188240, 200000, 21333),
    ),
    (
        "The input token count (1100000) exceeds the maximum number of tokens allowed (1048575).",
        (1100000, 1048575, None),
    ),
    (
        "This model's maximum prompt length is 131072 but the request contains 150000 tokens.",
        (150000, 131072, None),
    ),
    (
        "Prompt contains 40000 tokens and 0 draft tokens, too large for model with 32768 maximum "
        "context length",
        (40000, 32768, None),
    ),
    (
        "Request too large for model `llama-4-scout-17b-16e-instruct` in organization `org_01abc` on "
        "tokens per minute (TPM): Limit 6000, Requested 7000",
        (7000, 6000, None),
    ),
    # llama.cpp and servers that contain it
    (
        "request (20010 tokens) exceeds the available context size (2048 tokens), try increasing it",
        (20010, 2048, None),
    ),
    ("Requested tokens (5000) exceed context window of 4096", (5000, 4096, None)),
    (
        "Trying to keep the first 6000 tokens when context the overflows. However, the model is loaded with "
        "context length of only 4096 tokens, which is not enough.",
        (6000, 4096, None),
    ),
    ("Prompt length 5000 is greater than max_seq_len 4096", (5000, 4096, None)),
    (
        "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 4488 "
        "`inputs` tokens and 512 `max_new_tokens`",
        (4488, 4096, 512),
    ),
    # a proxy's own words around it
    (
        "Error code: 400 - litellm.BadRequestError: This model's maximum context length is 8192 "
        "tokens. However, your messages resulted in 9000 tokens.",
        (9000, 8192, None),
    ),
)


def refused(message: str, status: int = 400) -> BadAnswerError | FatalBackendError:
    error = classify_error(status, json.dumps({"error": {"message": message, "code": status}}), {})
    assert isinstance(error, BadAnswerError | FatalBackendError), repr(error)
    return error


@pytest.mark.parametrize(("message", "tokens"), WORDINGS)
@pytest.mark.parametrize("status", [400, 500])
def test_every_wording_of_a_full_context_has_its_numbers(
    message: str, tokens: tuple[int, int, int | None], status: int
) -> None:
    """A refusal for a full context leads to a smaller picture, and has the numbers of its message."""
    read, context, answer = tokens
    error = refused(message, status)
    assert (error.kind, error.change) == ("context", "shrink")
    assert error.overflow == Overflow(input_tokens=read, context=context, output_tokens=answer)


@pytest.mark.parametrize(
    "message",
    [
        "This model's maximum context length is 8192 tokens. However, you requested 512 output "
        "tokens and your prompt contains at least 7681 input tokens, for a total of at least 8193 tokens.",
        "This model's maximum context length is 2048 tokens. However, your prompt contains at least "
        "2049 input tokens, which exceeds this limit even without any output tokens. "
        "(parameter=input_tokens, value=2049)",
    ],
)
def test_a_count_that_was_stopped_is_only_a_lower_bound(message: str) -> None:
    """vLLM stops counting at its limit, and says "at least" then."""
    overflow = refused(message).overflow
    assert overflow is not None
    assert overflow.at_least


@pytest.mark.parametrize(
    "message",
    [
        "the prompt is longer than the context length currently available to the model; shorten the prompt",
        "prompt too long; exceeded max context length by 437 tokens",
        "Your input exceeds the context window of this model.",
        "Input is too long for requested model.",
        "This model's maximum context length is 32768 tokens. However, you requested 4096 output "
        "tokens and your prompt contains 200000 characters (more than 130688 characters, which is the "
        "upper bound for 28672 input tokens).",
    ],
)
def test_a_wording_without_clear_numbers_still_asks_for_a_smaller_picture(message: str) -> None:
    """A refusal that does not count tokens has no numbers, but is the same error."""
    error = refused(message)
    assert (error.kind, error.change, error.overflow) == ("context", "shrink", None)


def test_numbers_next_to_the_message_are_read() -> None:
    """llama-server repeats the numbers in fields, also inside the error text of Ollama."""
    body = {
        "error": {
            "message": "full",
            "type": "exceed_context_size_error",
            "n_prompt_tokens": 900,
            "n_ctx": 512,
        }
    }
    wanted = Overflow(input_tokens=900, context=512)
    assert classify_error(400, json.dumps(body), {}).overflow == wanted
    assert classify_error(400, json.dumps({"error": json.dumps(body)}), {}).overflow == wanted


@pytest.mark.parametrize(
    "message",
    [
        "max_tokens=5000 cannot be greater than max_model_len=2048. Please request fewer output tokens.",
        "'max_tokens' is too large: 100000. This model's maximum context length is 8192 tokens.",
        "'max_tokens' is too large: 130,000. This model's maximum context length is 128,000 tokens and your "
        "request has 50 input tokens (130,000 > 128,000 - 50).",
        "This model's maximum context length is 300 tokens. However, you requested 931 tokens (419 in the "
        "messages, 512 in the completion).",
    ],
)
def test_an_answer_longer_than_the_context_is_a_wrong_option(message: str) -> None:
    """No picture is small enough if --max-tokens alone fills the context."""
    error = refused(message)
    assert (type(error), error.kind) == (FatalBackendError, "bad_config")


def test_numbers_with_commas_are_whole() -> None:
    """2,000 output tokens fit into a context of 1,000,000: the picture is too large, not --max-tokens."""
    error = refused(
        "'max_tokens' is too large: 2,000. This model's maximum context length is 1,000,000 tokens and your "
        "request has 999,500 input tokens (2,000 > 1,000,000 - 999,500)."
    )
    assert error.overflow == Overflow(input_tokens=999_500, context=1_000_000, output_tokens=2000)


@pytest.mark.parametrize("message", ["", "full", "9" * 5000, "1 > 2", "context length " * 400])
def test_odd_text_has_no_numbers(message: str) -> None:
    """Text without two sizes gives no numbers, and is read quickly."""
    assert overflow_in(message, message) is None
