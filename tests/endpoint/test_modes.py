"""Modes that are a whole reply: each has the status and the words of the server that it imitates."""

import json
import re

import pytest

from endpoint import Endpoint
from endpoint.client import CHAT_PATHS, answer_in, ask, both_wires, question
from endpoint.modes import REPLIES

REPLIED: dict[str, tuple[int, str | tuple[str, str]]] = {
    # a proxy, or another machine on the way
    "html200": (200, "<title>Sign in</title>"),
    "html502": (502, "<title>502 Bad Gateway"),
    "html504": (504, "<title>504 Gateway Time-out"),
    "302": (302, ""),
    "408": (408, "request timeout"),
    "409": (409, "conflicts"),
    "413": (413, "413 Request Entity Too Large"),
    "425": (425, "too early"),
    "429": (429, "Too many requests"),
    "429-ms": (429, "Too many requests"),
    # the set-up
    "400": (400, "the request"),
    "401": (401, ("unauthorized", "Invalid API Key")),
    "403-empty": (403, ""),
    "404-model": (404, ("model 'tiny-vision' not found", "The model `tiny-vision` does not exist.")),
    "404-pull": (404, r"model \"tiny-vision\" not found, try pulling it first"),
    "404-route": (404, ("404 page not found", '{"detail": "Not Found"}')),
    "405": (405, ("405 method not allowed", '{"detail": "Method Not Allowed"}')),
    "422": (422, "field required"),
    "old_vllm_error_shape": (404, '{"object": "error", "message": "The model `tiny-vision` does not'),
    "not_multimodal": (400, "tiny-vision is not a multimodal model"),
    "no_mmproj": (500, "image input is not supported - hint"),
    "one_image": (400, "only supports one image while more than one image requested"),
    "too_many_images": (400, "At most 1 image(s) may be provided in one request."),
    "too_many_images:2": (400, "At most 1 image(s) may be provided in one prompt."),
    "too_many_images:3": (400, "but passed 3 image items"),
    "bad_format": (500, "invalid format: "),
    "bad_option": (500, "must be of type integer"),
    "bad_schema": (400, "JSON schema conversion failed"),
    "bad_keep_alive": (400, "time: invalid duration"),
    "bad_url": (400, "Invalid url format: "),
    "bad_url:2": (400, "url must be base64 encoded"),
    "bad_url:3": (400, "file:// URLs are not allowed"),
    "bad_url:4": (400, "uri must be base64 encoded"),
    "cloud_401": (401, '"signin_url": "https://'),
    "cloud_403": (403, "cloud is disabled"),
    "cloud_502": (502, "https://ollama.com:443"),
    "402": (402, "Insufficient credits"),
    "insufficient_quota": (429, '"code": "insufficient_quota"'),
    "wrong_key": (401, "Incorrect API key provided"),
    "wrong_key:2": (401, "No auth credentials found"),
    "wrong_key:3": (401, "User not found."),
    "wrong_key:4": (400, '[{"error": {"code": 400, "message": "API key not valid'),
    "no_credits": (429, '"code": "insufficient_quota"'),
    "no_credits:2": (402, "Insufficient credits"),
    "no_credits:3": (402, "requires more credits"),
    "no_credits:4": (403, "Key limit exceeded"),
    # this picture or this question
    "context": (400, ("n_prompt_tokens", "Input length (9000) exceeds")),
    "context:1": (400, "However, you requested 512 output tokens and your prompt contains"),
    "context:2": (400, "'max_tokens' or 'max_completion_tokens' is too large: 512."),
    "context:3": (400, "The decoder prompt (length 9000)"),
    "context:4": (400, "The prompt (total length 9000) is too long to fit"),
    "context:5": (400, "You passed 8000 input tokens"),
    "context:6": (400, "Input length (9000) exceeds"),
    "context:7": (400, "at least 8193 input tokens"),
    "context:8": (400, "cannot be greater than max_model_len"),
    "context:9": (400, "the prompt is longer than the context length currently available"),
    "context:10": (400, "prompt too long; exceeded max context length by"),
    "context_in_200": (200, '{"error": {"code": 400, "message": "request (20010 tokens) exceeds'),
    "input_filter": (400, '"innererror": {"code": "ResponsibleAIPolicyViolation"'),
    "moderation": (400, '"innererror": {"code": "ResponsibleAIPolicyViolation"'),
    "moderation:2": (400, "moderation_blocked"),
    "moderation:3": (403, "flagged_input"),
    "moderation:4": (400, '"message": "Provider returned error"'),
    "400-image": (400, r"{\"error\": {\"code\": 400, \"message\": \"Failed to load image"),
    "nested_json_error": (400, r"{\"error\": {\"code\": 400, \"message\": \"Failed to load image"),
    "undecodable": (400, ': "Failed to load image or audio file"'),
    "unknown_format": (500, "image: unknown format"),
    "cannot_identify": (400, "Failed to load image: cannot identify image file"),
    "cannot_identify:500": (500, "Failed to load image: cannot identify image file"),
    "cannot_identify:2": (400, "image file is truncated"),
    "cannot_identify:3": (400, "Non-base64 digit found"),
    "processor": (400, "Failed to apply Qwen2_5_VLProcessor"),
    "processor:500": (500, "Failed to apply Qwen2_5_VLProcessor"),
    "bomb": (500, "decompression bomb"),
    "file_missing": (500, "No such file or directory"),
    "url_refused": (500, "Cannot connect to host"),
    "url_404": (422, "Failed to fetch media from URL: HTTP 404"),
    "not_base64": (501, "Only base64 data URLs are supported"),
    # the engine
    "499": (499, "request canceled"),
    "500": (500, "internal error"),
    "empty500": (500, ""),
    "503-busy": (503, ("server busy, please try again.  maximum pending", "The engine is currently busy")),
    "503-empty": (503, ""),
    "503-loading": (
        503,
        ("Loading model", '503, "message": "Loading model", "type": "unavailable_error"'),
    ),
    "runner_stopped": (500, "unexpectedly stopped"),
    "engine_dead": (500, "EngineCore encountered an issue"),
    "unexpected_eof": (500, "while running the model: unexpected EOF"),
    "load_failed": (500, "llama runner process no longer running: -1"),
    "load_failed:2": (500, "llama-server process has terminated: "),
    "load_failed:3": (500, "timed out waiting for llama-server to start"),
    "load_failed:4": (500, "out-of-memory during startup"),
    "load_failed:5": (500, "no slots available after 10 retries"),
    "load_failed:6": (500, "unexpected server status: "),
    "chunk_not_found": (500, "got exception: Chunk not found"),
    # status 200 without an answer
    "broken_json": (200, '{"model": "tiny'),
    "error_in_200": (200, ("unexpected EOF", "Provider returned error")),
    "done_false": (200, ('"done": false', '"finish_reason": null')),
    "bangs": (200, ('"content": "' + "!" * 200, '"content": "' + "!" * 200)),
    "length": (200, ('"done_reason": "length"', '"finish_reason": "length"')),
    "length_loop": (200, "many cars in the picture. There are many cars"),
    "loop": (200, "many cars in the picture. There are many cars"),
    "empty": (200, ('"content": ""}', '"content": "", "refusal": null, "reasoning": null')),
    "empty_thinking": (200, ('"content": "", "thinking": "Let', '"refusal": null, "reasoning": "Let me')),
    "null_content": (200, ('"content": "", "thinking": "Let', '"content": null, "refusal": null, "reas')),
    "null_content:reasoning_content": (200, ('"thinking": "Let', '"reasoning_content": "Let me look')),
    "refusal": (200, ('"content": ""}', '"content": null, "refusal": "I\'m sorry')),
    "truncated_prompt_200_empty": (200, ('"prompt_eval_count": 1026', '"prompt_tokens": 1026')),
    "schema_broken_json": (200, r'"content": "{\"animal\": \"cat\", \"legs\": "'),
    "finish_abort": (200, ('"done_reason": "abort"', '"finish_reason": "abort"')),
    "finish_error": (200, "out of memory"),
    "content_filter": (200, ('"done_reason": "content_filter"', '"finish_reason": "content_filter"')),
    "ndjson_error_midstream": (200, ('{"error": "an error was', 'data: {"error": {"message": "Engine')),
    "ndjson_no_done": (200, ('" of"}, "done": false}', '"delta": {"content": " of"}')),
}
"""Mode -> status and words; a pair of words if Ollama's wire and OpenAI's differ."""


def told(path: str, words: str | tuple[str, str]) -> str:
    return words if isinstance(words, str) else words[CHAT_PATHS.index(path)]


@both_wires
@pytest.mark.parametrize("mode", REPLIED)
def test_each_reply_has_its_status_and_words(endpoint: Endpoint, path: str, mode: str) -> None:
    """A mode that is a reply sends its status and words, once for each entry in the script."""
    endpoint.script = [mode]
    status, words = REPLIED[mode]
    got, text, _ = ask(endpoint, path, question(path))
    assert got == status
    assert told(path, words) in text if words else text == ""
    assert ask(endpoint, path, question(path))[0] == 200


def test_the_table_holds_every_reply() -> None:
    """The table above holds every mode that is a reply, except one that is only a late reply."""
    assert {mode.partition(":")[0] for mode in REPLIED} == set(REPLIES) - {"503_after_slow"}


@pytest.mark.parametrize("mode", ["load_failed:7", "context:11", "too_many_images:4"])
def test_a_missing_wording_fails_the_test(mode: str) -> None:
    """The number of a wording that does not exist fails the test that uses it."""
    with pytest.raises(IndexError), Endpoint(script=[mode]) as endpoint:  # noqa: SIM117
        with pytest.raises(ConnectionError):
            ask(endpoint, "/api/chat", question("/api/chat"))


@both_wires
@pytest.mark.parametrize(
    ("mode", "reason", "empty"),
    [
        ("length", "length", False),
        ("length_loop", "length", False),
        ("empty", "stop", True),
        ("loop", "stop", False),
        ("bangs", "stop", False),
        ("schema_broken_json", "stop", False),
        ("truncated_prompt_200_empty", "stop", True),
        ("finish_abort", "abort", False),
        ("finish_error", "error", False),
        ("content_filter", "content_filter", True),
    ],
)
def test_bad_answers_have_status_200(
    endpoint: Endpoint, path: str, mode: str, reason: str, empty: bool
) -> None:
    """A bad answer has status 200; only its finish reason or its text shows it."""
    endpoint.script = [mode]
    status, text, _ = ask(endpoint, path, question(path))
    answer, got = answer_in(path, text)
    assert (status, got, answer == "") == (200, reason, empty)


def test_done_false_has_no_reason(endpoint: Endpoint) -> None:
    """Ollama's broken-off answer has done: false, and no reason and no counts."""
    endpoint.script = ["done_false"]
    payload = json.loads(ask(endpoint, "/api/chat", question("/api/chat"))[1])
    assert (payload["done"], sorted(payload)) == (False, ["created_at", "done", "message", "model"])


def test_a_broken_schema_answer_is_no_json(endpoint: Endpoint) -> None:
    """The answer that breaks its schema ends in the middle of the JSON object."""
    endpoint.script = ["schema_broken_json"]
    answer, _ = answer_in("/api/chat", ask(endpoint, "/api/chat", question("/api/chat"))[1])
    with pytest.raises(json.JSONDecodeError):
        json.loads(answer or "")


@pytest.mark.parametrize("argument", ["7", "nan", "-5", "99999", "Wed, 21 Oct 2026 07:28:00 GMT"])
@pytest.mark.parametrize(("mode", "header"), [("429", "Retry-After"), ("429-ms", "retry-after-ms")])
def test_retry_after_is_sent_unchanged(endpoint: Endpoint, mode: str, header: str, argument: str) -> None:
    """The argument of 429 is sent unchanged as its Retry-After, in seconds or milliseconds, valid or not."""
    endpoint.script = [f"{mode}:{argument}", mode]
    status, _, headers = ask(endpoint, "/api/chat", question("/api/chat"))
    assert (status, headers[header]) == (429, argument)
    assert headers[{"429": "retry-after-ms", "429-ms": "Retry-After"}[mode]] is None
    assert ask(endpoint, "/api/chat", question("/api/chat"))[2][header] is None


def test_a_reload_is_only_reported(endpoint: Endpoint) -> None:
    """The mode's argument is the reported duration of the load; other answers report next to none."""
    endpoint.script = ["reload:8", "ok"]
    told = [json.loads(ask(endpoint, "/api/chat", question("/api/chat"))[1]) for _ in range(2)]
    assert [payload["load_duration"] for payload in told] == [8_000_000_000, 1000]
    assert all(payload["total_duration"] > payload["load_duration"] for payload in told)
    assert "size=64x48" in told[0]["message"]["content"]


def test_a_redirect_names_its_target(endpoint: Endpoint) -> None:
    """The Location of a redirect is on another host."""
    endpoint.script = ["302"]
    headers = ask(endpoint, "/api/chat", question("/api/chat"))[2]
    assert headers["Location"].startswith("https://login.invalid/")


@both_wires
def test_a_stream_comes_in_pieces(endpoint: Endpoint, path: str) -> None:
    """A streamed answer has the text of the whole one, and ends with its mark and its counts."""
    endpoint.script = ["ok_stream"]
    endpoint.answer = lambda request: "A red  picture."
    _, text, headers = ask(endpoint, path, question(path) | {"stream_options": {"include_usage": True}})
    assert headers["Transfer-Encoding"] == "chunked"
    if path == "/api/chat":
        assert headers["Content-Type"] == "application/x-ndjson"
        lines = [json.loads(line) for line in text.splitlines()]
        said = [line["message"]["content"] for line in lines]
        assert [line["done"] for line in lines] == [False] * 3 + [True]
        assert (lines[-1]["done_reason"], lines[-1]["prompt_eval_count"]) == ("stop", 67)
    else:
        assert headers["Content-Type"].startswith("text/event-stream")
        *events, end = re.findall(r"data: (.*)\n\n", text)
        *chunks, counted = map(json.loads, events)
        said = [chunk["choices"][0]["delta"].get("content", "") for chunk in chunks]
        assert (end, chunks[-1]["choices"][0]["finish_reason"]) == ("[DONE]", "stop")
        assert (counted["choices"], counted["usage"]["prompt_tokens"]) == ([], 67)
    assert "".join(said) == "A red  picture."


@both_wires
def test_broken_off_streams_have_no_end_mark(endpoint: Endpoint, path: str) -> None:
    """A stream that ends with an error or silently has no finish reason; only the first has an error."""
    endpoint.script = ["ndjson_error_midstream", "ndjson_no_done"]
    for mode in list(endpoint.script):
        text = ask(endpoint, path, question(path))[1]
        assert text.count("content") >= 3
        assert ('"error"' in text) == (mode == "ndjson_error_midstream")
        assert not re.search(r'"done": true|"finish_reason": "', text)


def test_only_the_health_check_can_fail(endpoint: Endpoint) -> None:
    """A route has its own mode, and questions are still answered."""
    endpoint.routes = {"/health": "503-empty"}
    assert ask(endpoint, "/health")[:2] == (503, "")
    assert ask(endpoint, CHAT_PATHS[1], question(CHAT_PATHS[1]))[0] == 200
