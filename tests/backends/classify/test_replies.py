"""The classification of replies: recorded replies by name, quoted replies by their text."""

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from wire_outcomes import (
    AUTH,
    BAD_CONFIG,
    BAD_RESPONSE,
    BUSY,
    CONTEXT,
    CRASH,
    DOWN,
    NO_MODEL,
    NO_VISION,
    RECORDED,
    REJECTED,
    SERVER_ERROR,
    WRONG_URL,
    Outcome,
)

from vlmbatch.backends.classify import check_answer, classify_error, error_in, retry_after
from vlmbatch.errors import BackendError, BadAnswerError, FatalBackendError, RejectedError, TransientError

WIRE = Path(__file__).parents[2] / "wire"
RECORDINGS = {
    f"{server}/{reply['name']}": reply
    for server in RECORDED
    for reply in json.loads((WIRE / f"{server}.json").read_text())
}
EXPECTED = {
    f"{server}/{name}": outcome
    for server, rows in RECORDED.items()
    for outcome, names in rows
    for name in names.split()
}
REFUSED: Outcome = (RejectedError, "refused")
QUOTA: Outcome = (FatalBackendError, "quota")
TIMEOUT: Outcome = (TransientError, "timeout")
BODY_TOO_LARGE: Outcome = (BadAnswerError, "body_too_large")
BAD_SHAPE: Outcome = (RejectedError, "bad_shape")


def meaning(reply: dict[str, Any]) -> BackendError | None:
    """The error that a backend raises for a recorded reply, by the same steps as both backends."""
    status, body, headers = reply["status"], reply["body"], reply["headers"]
    if status != 200:
        return classify_error(status, body, headers)
    payload = json.loads(body) if body.startswith("{") else {}
    if error_in(payload) is not None:
        return classify_error(status, body, headers)
    try:
        if "choices" in payload:
            choice = payload["choices"][0]
            message = choice["message"]
            check_answer(message["content"], choice["finish_reason"], refusal=message.get("refusal"))
        elif "message" in payload:
            message = payload["message"]
            check_answer(
                message["content"],
                payload.get("done_reason"),
                done=payload["done"],
                thinking=message.get("thinking"),
            )
    except BackendError as error:
        return error
    return None


def outcome(error: BackendError | None) -> Outcome:
    return None if error is None else (type(error), error.kind)


def test_every_recording_has_a_row() -> None:
    """Every recording has an expected outcome, and every expected outcome a recording."""
    assert sorted(RECORDINGS) == sorted(EXPECTED)


@pytest.mark.parametrize("name", sorted(RECORDINGS))
def test_recorded_replies(name: str) -> None:
    """Replies of live servers get the class and kind of the failure table, whatever their status."""
    error = meaning(RECORDINGS[name])
    assert outcome(error) == EXPECTED[name]
    if error is not None and error.kind in ("context", "body_too_large"):
        assert error.change == "shrink"


CONTEXT_WORDINGS = (
    "This model's maximum context length is 2048 tokens. However, you requested 512 output tokens and your "
    "prompt contains at least 1900 input tokens, for a total of at least 2412 tokens.",
    "'max_tokens' or 'max_completion_tokens' is too large: 512. This model's maximum context length is 2048 "
    "tokens and your request has 1900 input tokens (512 > 2048 - 1900).",
    "The decoder prompt (length 3053) is longer than the maximum model length of 2048. Make sure that "
    "`max_model_len` is no smaller than the number of text tokens plus multimodal tokens.",
    "The prompt (total length 3053) is too long to fit into the model (context length 2048).",
    "You passed 1900 input tokens and requested 512 output tokens. However, the model's context length is "
    "only 2048 tokens, resulting in a maximum input length of 1536 tokens.",
    "Input length (3053) exceeds model's maximum context length (2048).",
    "This model's maximum context length is 2048 tokens. However, your prompt contains at least 2049 input "
    "tokens, which exceeds this limit even without any output tokens.",
    "the prompt is longer than the context length currently available to the model; try a larger num_ctx",
    "prompt too long; exceeded max context length by 437 tokens",
)
TOO_MANY_TOKENS = (
    "max_tokens=5000 cannot be greater than max_model_len=2048. Please request fewer output tokens.",
    "'max_tokens' or 'max_completion_tokens' is too large: 5000. This model's maximum context length is 2048 "
    "tokens and your request has 26 input tokens (5000 > 2048 - 26).",
    "This model's maximum context length is 2048 tokens. However, you requested 2048 output tokens and your "
    "prompt contains 26 input tokens.",
    "You passed 26 input tokens and requested 4096 output tokens. However, the model's context length is "
    "only 2048 tokens.",
)


def openai(message: str, code: object = None, kind: str = "invalid_request_error") -> str:
    return json.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}})


def old_vllm(message: str, kind: str, code: int) -> str:
    return json.dumps({"object": "error", "message": message, "type": kind, "param": None, "code": code})


def ollama(message: str) -> str:
    return json.dumps({"error": message})


HTML_502 = (
    "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>nginx: model not found</body></html>"
)
AZURE = json.dumps(
    {
        "error": {
            "message": "The response was filtered, please modify your prompt and retry.",
            "type": None,
            "param": "prompt",
            "code": "content_filter",
            "status": 400,
            "innererror": {"code": "ResponsibleAIPolicyViolation", "content_filter_result": {}},
        }
    }
)
QUOTED: tuple[tuple[int, str, Outcome], ...] = (
    # the old vLLM shape, FastAPI's, a gateway's, and servers without a message
    (404, old_vllm("The model `x` does not exist.", "NotFoundError", 404), NO_MODEL),
    (400, old_vllm("At most 1 image(s) may be provided in one request.", "BadRequestError", 400), BAD_CONFIG),
    (200, old_vllm(CONTEXT_WORDINGS[0], "BadRequestError", 400), CONTEXT),
    (401, '{"error":"Unauthorized"}', AUTH),
    (404, '{"detail":"Not Found"}', WRONG_URL),
    (422, '{"detail":[{"loc":["body","x"],"msg":"field required","type":"missing"}]}', REJECTED),
    (403, '{"message":"Forbidden"}', AUTH),
    (403, "", AUTH),
    (404, "404 page not found", WRONG_URL),
    (500, "", SERVER_ERROR),
    (503, "", DOWN),
    (500, "Internal Server Error", SERVER_ERROR),
    (418, "", REJECTED),
    # proxies
    (502, HTML_502, SERVER_ERROR),
    (504, "<html><head><title>504 Gateway Time-out</title></head></html>", TIMEOUT),
    (524, "<html><head><title>524: A timeout occurred</title></head></html>", TIMEOUT),
    (599, "", TIMEOUT),
    (413, "<html><head><title>413 Request Entity Too Large</title></head></html>", BODY_TOO_LARGE),
    (200, "<!DOCTYPE html><html><head><title>Sign in</title></head></html>", BAD_RESPONSE),
    (200, "", BAD_RESPONSE),
    (200, "[" * 100_000, BAD_RESPONSE),
    (302, "", WRONG_URL),
    (308, "", WRONG_URL),
    # statuses that speak for themselves
    (408, "", TIMEOUT),
    (409, "{}", SERVER_ERROR),
    (425, "", SERVER_ERROR),
    (499, ollama("request canceled"), SERVER_ERROR),
    (405, "405 method not allowed", WRONG_URL),
    (429, openai("Rate limit reached for requests", "rate_limit_exceeded"), BUSY),
    (429, "", BUSY),
    (503, "<html><head><title>503 Service Temporarily Unavailable</title></head></html>", BUSY),
    (429, openai("You exceeded your current quota.", "insufficient_quota", "insufficient_quota"), QUOTA),
    (402, "", QUOTA),
    (501, openai("Only base64 data URLs are supported for now."), REJECTED),
    # Ollama
    (404, ollama('model "x" not found, try pulling it first'), NO_MODEL),
    (400, ollama('"x" does not support thinking'), BAD_CONFIG),
    (400, ollama('"nomic-embed" does not support chat'), BAD_CONFIG),
    (400, ollama('time: unknown unit "d" in duration "1d"'), BAD_CONFIG),
    (400, ollama("this model only supports one image while more than one image requested"), BAD_CONFIG),
    (500, ollama("Failed to create new sequence: failed to process inputs: image: unknown format"), REJECTED),
    (500, ollama("http: panic serving: height:27 or width:257 must be larger than factor:28"), BAD_SHAPE),
    (500, ollama("absolute aspect ratio must be smaller than 200, got 250 / 1"), BAD_SHAPE),
    (500, ollama("model runner has unexpectedly stopped, this may be due to resource limitations"), CRASH),
    (200, ollama("an error was encountered while running the model: unexpected EOF"), CRASH),
    (500, ollama("llama runner process no longer running: -1"), DOWN),
    (500, ollama("timed out waiting for llama-server to start: context deadline exceeded"), DOWN),
    (500, ollama("no slots available after 10 retries"), DOWN),
    (503, ollama("server busy, please try again.  maximum pending requests exceeded"), BUSY),
    (401, '{"error":"unauthorized","signin_url":"https://example.com/c"}', AUTH),
    (500, ollama('POST predict: Post "http://127.0.0.1:42623/completion": EOF'), CRASH),
    (
        500,
        ollama(
            'do request: Post "http://127.0.0.1:4262/completion": read tcp 127.0.0.1:5->127.0.0.1:6: wsarecv'
        ),
        CRASH,
    ),
    (500, ollama('do load request: Post "http://127.0.0.1:40825/load": EOF'), DOWN),
    (502, ollama('Post "https://ollama.com:443/api/chat": EOF'), SERVER_ERROR),
    (500, ollama("model requires more system memory (7.5 GiB) than is available (5.2 GiB)"), DOWN),
    (
        500,
        ollama(
            "Failed to create new sequence: failed to process inputs: this model is missing data required "
            "for image input"
        ),
        NO_VISION,
    ),
    # vLLM
    (400, openai("llama-3 is not a multimodal model"), NO_VISION),
    (400, openai("You set image=2 (or defaulted to 1) in `--limit-mm-per-prompt`, but passed 3"), BAD_CONFIG),
    (
        500,
        openai("Failed to apply Qwen2_5_VLProcessor on data={'images': [<PIL.Image size=332x27>]}"),
        REJECTED,
    ),
    (503, openai("The engine is currently busy and cannot accept new requests."), BUSY),
    (500, openai("Background loop has errored already."), DOWN),
    # llama.cpp
    (503, openai("Loading model", 503, "unavailable_error"), DOWN),
    (200, openai("something", 400, "exceed_context_size_error"), CONTEXT),
    (400, openai("Invalid url format: xyz"), WRONG_URL),
    # hosted endpoints
    (400, AZURE, REFUSED),
    (400, openai("Incorrect API key provided", "invalid_api_key"), AUTH),
    (200, openai("Provider returned error", 502), SERVER_ERROR),
    (200, openai("Rate limited upstream", 429), BUSY),
    (529, openai("Overloaded", None, "overloaded_error"), BUSY),
    (400, openai("Unsupported value: 'temperature'", "unsupported_value"), BAD_CONFIG),
    (400, openai("no such thing", "model_not_found"), NO_MODEL),
    (400, openai("x is not a valid model ID"), NO_MODEL),
    (400, openai("Invalid model name passed in model=x"), NO_MODEL),
    (404, openai("No endpoints found that support image input"), NO_VISION),
    (
        400,
        openai("Failed to deserialize: messages[0]: unknown variant `image_url`, expected `text`"),
        NO_VISION,
    ),
    (400, openai("Invalid content type. image_url is only supported by certain models."), NO_VISION),
    (400, openai("Image input is not enabled for this model"), NO_VISION),
    (400, openai("Incorrect API key provided: sk-abcdefgh"), AUTH),
    (400, openai("API key not valid. Please pass a valid API key."), AUTH),
    (429, openai("Insufficient balance"), QUOTA),
    (400, openai("Your credit balance is too low to access the API."), QUOTA),
    (400, openai("full", "context_length_exceeded"), CONTEXT),
    (429, openai("Request too large for gpt-4o on tokens per min (TPM): Limit 30000"), CONTEXT),
    (400, openai("blocked", "content_policy_violation"), REFUSED),
    (400, openai("The prompt triggered the content management policy"), REFUSED),
    (500, openai("cannot identify image file"), REJECTED),
    (500, openai("image file is truncated (105 bytes not processed)"), REJECTED),
    (500, openai("Failed to process image"), REJECTED),
    (500, openai("Invalid image."), REJECTED),
    (500, openai("Non-base64 digit found"), REJECTED),
    (500, ollama("Failed to load image or audio file"), REJECTED),
    (500, openai("EngineDeadError"), CRASH),
    (500, openai("CUDA out of memory. Tried to allocate 20.00 MiB"), CRASH),
    (500, ollama("unexpected EOF"), CRASH),
    (400, ollama("unexpected EOF"), REJECTED),
    (500, ollama("model is still loading"), DOWN),
    (500, ollama("unexpected server status: llm server loading"), DOWN),
    (500, ollama("llama-server ran out-of-memory during startup"), DOWN),
    (500, openai("The engine is currently busy"), BUSY),
    (200, ollama("server busy, please try again."), BUSY),
    (500, openai("Too many requests"), BUSY),
)


@pytest.mark.parametrize(("status", "body", "expected"), QUOTED)
def test_quoted_replies(status: int, body: str, expected: Outcome) -> None:
    """Replies that users reported, and that are not recorded here, are classified by their text."""
    assert outcome(classify_error(status, body, {})) == expected


def lines(*pieces: dict[str, Any], before: str = "", end: str = "") -> str:
    """A stream of these pieces: JSON lines, or events with a prefix `before`."""
    return "".join(f"{before}{json.dumps(piece)}\n{end}" for piece in pieces)


PIECE = {"model": "m", "message": {"role": "assistant", "content": "invalid api key"}, "done": False}
DELTA = {"object": "chat.completion.chunk", "choices": [{"delta": {"content": "model 'x' not found"}}]}
EOF_ERROR = {"error": "an error was encountered while running the model: unexpected EOF"}
FULL_ERROR = {"error": {"message": "full", "type": "exceed_context_size_error", "code": 400}}
STREAMS: tuple[tuple[str, Outcome], ...] = (
    (lines(PIECE, PIECE, EOF_ERROR), CRASH),
    (lines(*[PIECE] * 200, EOF_ERROR), CRASH),
    (lines(PIECE, FULL_ERROR), CONTEXT),
    (
        lines(
            DELTA, {"error": {"message": "EngineCore encountered an issue.", "code": 500}}, before="data: "
        ),
        CRASH,
    ),
    (lines(DELTA, FULL_ERROR, before="data: ", end="\n") + "data: [DONE]\n\n", CONTEXT),
    ("data: " + json.dumps(FULL_ERROR), CONTEXT),
    (lines(PIECE, PIECE), BAD_RESPONSE),
    (lines(DELTA, DELTA, before="data: ", end="\n"), BAD_RESPONSE),
    (lines(DELTA, before="data: ", end="\n") + "data: [DONE]\n\n", BAD_RESPONSE),
)


@pytest.mark.parametrize(("body", "expected"), STREAMS)
def test_streams_are_read_for_their_error(body: str, expected: Outcome) -> None:
    """The error in a stream with status 200 decides; the text of the answer before it never does."""
    error = classify_error(200, body, {})
    assert outcome(error) == expected
    assert "api key" not in str(error)


@pytest.mark.parametrize(
    "body", ["invalid api key", '{"model":"m","message":{"content":"no such model_not_found']
)
def test_what_is_no_error_object_decides_nothing_under_200(body: str) -> None:
    """Broken JSON or plain text with status 200 is a bad response, whatever its text: it may be an answer."""
    assert outcome(classify_error(200, body, {})) == BAD_RESPONSE


@pytest.mark.parametrize("words", CONTEXT_WORDINGS)
@pytest.mark.parametrize("status", [400, 500, 200])
def test_every_wording_of_a_full_context_shrinks_the_picture(status: int, words: str) -> None:
    """A full context is retried with a smaller picture, for every wording and status."""
    error = classify_error(status, openai(words, 400), {})
    assert (outcome(error), error.change) == (CONTEXT, "shrink")


@pytest.mark.parametrize("words", TOO_MANY_TOKENS)
def test_max_tokens_beyond_the_context_is_a_wrong_option(words: str) -> None:
    """If --max-tokens alone fills the context, no picture is small enough, and the error names the option."""
    error = classify_error(400, openai(words, 400), {})
    assert outcome(error) == BAD_CONFIG
    assert "set a smaller --max-tokens" in str(error)


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (404, '{"detail":"Not Found"}', "ends in /v1"),
        (401, '{"error":"Unauthorized"}', "set --api-key, or set OPENAI_API_KEY"),
        (403, "", "OLLAMA_HOST"),
        (404, ollama("model 'x' not found"), "--model"),
        (500, ollama("image input is not supported"), "choose a vision model with --model"),
        (502, HTML_502, "an HTML page (title 502 Bad Gateway)"),
        (500, "", "(HTTP 500 without a text)"),
    ],
)
def test_messages_say_what_to_do(status: int, body: str, told: str) -> None:
    """A message contains the server's text and, if the user must act, the option to set."""
    assert told in str(classify_error(status, body, {}))


def test_redirects_name_their_goal_without_its_secrets() -> None:
    """The error for a redirect shows its target without user, password and query."""
    error = classify_error(302, "", {"Location": "https://me:pw@example.com/login?token=abc"})
    assert "https://example.com/login" in str(error)
    assert "pw" not in str(error)
    assert "abc" not in str(error)


def test_messages_hold_no_keys_pictures_or_control_characters() -> None:
    """A message contains no keys, no picture data and no control characters for the terminal."""
    picture = "data:image/jpeg;base64," + "QUJD" * 400
    words = f"bad \x1b[31m\u202e\ud800 key sk-proj-abcdef123456 Bearer tok.en {picture} " + "QUJD" * 400
    told = str(classify_error(400, openai(words + "x " * 4000), {}))
    assert all(secret not in told for secret in ("abcdef", "tok.en", "QUJD"))
    assert told.isprintable()
    assert len(told) < 700


def test_an_error_is_found_in_every_shape() -> None:
    """Strings, objects, JSON inside strings and the shapes of vLLM, FastAPI and gateways are all read."""
    nested = json.dumps({"error": {"code": 400, "message": "inner words", "type": "invalid_request_error"}})
    assert error_in({"error": "plain"}) == "plain"
    assert error_in({"error": {"message": "object", "type": "t", "code": 400}}) == "object"
    assert error_in({"error": nested}) == "inner words"
    assert error_in({"error": {"message": nested, "code": None}}) == "inner words"
    assert error_in({"object": "error", "message": "old", "code": 404}) == "old"
    assert error_in({"detail": "Not Found"}) == "Not Found"
    assert error_in({"detail": [{"msg": "one"}, {"msg": "two"}]}) == "one; two"
    place = ["body", "messages", 0, "content", 1, "image_url", "detail"]
    missing = {"detail": [{"loc": place, "msg": "Field required"}], "body": {}}
    assert error_in(missing) == "Field required (messages[0].content[1].image_url.detail)"
    assert error_in({"detail": [{"loc": ["body"], "msg": "Field required"}]}) == "Field required (body)"
    assert error_in({"error": {"message": "bad value", "param": "top_p"}}) == "bad value (top_p)"
    assert error_in({"error": {"message": "bad top_p", "param": "top_p"}}) == "bad top_p"
    assert error_in({"error": {"status": 3}}) == "an error without a message"


def test_deep_nesting_is_an_error_without_a_message() -> None:
    """A very deeply nested error does not raise a RecursionError."""
    payload: dict[str, object] = {"message": "deep"}
    for _ in range(5000):
        payload = {"message": payload}
    assert error_in({"error": payload}) == "an error without a message"


@pytest.mark.parametrize(
    "payload",
    [
        {"message": {"role": "assistant", "content": "fine"}, "done": True},
        {"choices": [], "error": None},
        {"choices": [], "error": ""},
        {"choices": [], "detail": "extra"},
        {"object": "list", "data": []},
        [],
        "error",
        None,
    ],
)
def test_good_replies_hold_no_error(payload: object) -> None:
    """A reply without an error, or with an empty one, has no error."""
    assert error_in(payload) is None


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"retry-after": " 1.5 "}, 1.5),
        ({"retry-after-ms": "250", "Retry-After": "7"}, 0.25),
        ({"retry-after-ms": "soon", "Retry-After": "7"}, 7.0),
        ({"Retry-After": "99999"}, 900.0),
        ({"Retry-After": "0"}, None),
        ({"Retry-After": "-5"}, None),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "inf"}, None),
        ({"Retry-After": "later"}, None),
        ({"Retry-After": "9" * 5000}, None),
        ({"Retry-After": "Mon, 01 Jan 99999999999 00:00:00 GMT"}, None),
        ({"Retry-After": "Mon, 01 Jan 2020 00:00:00 +99999999999"}, None),
        ({"Retry-After": "Mon, 01 Jan 2020 9999999999:00:00 GMT"}, None),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, None),
        ({"Retry-After": "Wed, 21 Oct 2099 07:28:00 -0000"}, 900.0),
        ({"Retry-After": ""}, None),
        ({}, None),
    ],
)
def test_retry_after_is_believed_within_reason(headers: dict[str, str], wait: float | None) -> None:
    """Seconds, milliseconds and dates are read, up to 900 s; infinite or non-positive values are ignored."""
    assert retry_after(headers) == wait


GEMINI_429 = {
    "error": {
        "code": 429,
        "message": "Resource has been exhausted. Please retry in 45.306567158s.",
        "status": "RESOURCE_EXHAUSTED",
        "details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "45s"}],
    }
}


@pytest.mark.parametrize(
    ("text", "wait"),
    [
        (json.dumps([GEMINI_429]), 45.306567158),
        (json.dumps({"error": {**GEMINI_429["error"], "message": "Quota"}}), 45.0),
        (json.dumps({"error": json.dumps({"message": "Quota", "retryDelay": "3.5s"})}), 3.5),
        ("Rate limit reached. Please try again in 20s. Visit https://example.org", 20.0),
        ("Rate limit reached. Please try again in 7m12.5s.", 432.5),
        ("Rate limit reached. Please try again in 120ms.", 0.12),
        ("Please retry after 10 seconds.", 10.0),
        ("Please retry after 1 minute and 3 seconds.", 63.0),
        ("Please try again in 2h30m.", 900.0),
        ("Please try again in 0s.", None),
        ("Please try again in 3 days.", None),
        ("Please try again later.", None),
        ("try again in " + "9" * 5000, None),
    ],
)
def test_a_wait_in_the_text_is_believed(text: str, wait: float | None) -> None:
    """A wait in the text of a busy server is read in any unit; a wait in a header counts first."""
    assert classify_error(429, text, {}).retry_after == wait
    assert classify_error(429, text, {"Retry-After": "7"}).retry_after == 7.0
    assert classify_error(400, text, {}).retry_after is None


def test_retry_after_reads_dates() -> None:
    """A date one minute ahead is a wait of about a minute in the error."""
    when = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    error = classify_error(429, "", {"Retry-After": when})
    assert error.retry_after is not None
    assert 0 < error.retry_after <= 60
