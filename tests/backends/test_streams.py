"""Answers that come as a stream although none was requested, and answers with other fields next to them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from backend_contract import KINDS, babbling, question, reply
from replying import OLLAMA, OPENAI, WIRES, Raw, as_json, chat, replying
from running import ran

from vlmbatch.backends.classify.body import answer_in
from vlmbatch.backends.classify.streams import MOST_PIECES, pieces_in
from vlmbatch.errors import BackendError, BadAnswerError, FatalBackendError, TransientError
from vlmbatch.records import Completion

Photos = Callable[..., Path]
USAGE = {"prompt_tokens": 220, "completion_tokens": 4}


def delta(reason: object = None, index: int = 0, **fields: Any) -> dict[str, Any]:
    """A chunk of OpenAI's API."""
    return {"model": "tiny", "choices": [{"index": index, "delta": fields, "finish_reason": reason}]}


def events(*pieces: object, end: str = "data: [DONE]\n\n") -> str:
    """Server-sent events."""
    return "".join(f"data: {json.dumps(piece)}\n\n" for piece in pieces) + end


CHUNKS = [
    delta(role="assistant", content=""),
    delta(reasoning="Hm, "),
    delta(reasoning_content=None, reasoning="fur."),
    delta(content="A grey"),
    delta(index=1, content="Another answer"),
    delta(content=" cat."),
    delta("stop"),
    {"model": "tiny", "choices": [], "usage": USAGE},
]
WHOLE = events(*CHUNKS)
OPENAI_STREAMS = {
    "as OpenAI sends it": WHOLE,
    "with CRLF": WHOLE.replace("\n", "\r\n"),
    "with CR": WHOLE.replace("\n", "\r"),
    "without its last event": events(*CHUNKS, end=""),
    "without the last empty line": events(*CHUNKS, end="data: [DONE]"),
    "with another mark at its end": events(*CHUNKS, end="data: [done]\n\n"),
    "with a word at its end": events(*CHUNKS, end="event: done\ndata: finished\n\n"),
    "with success in each event": events(*({**chunk, "message": "Success", "code": 0} for chunk in CHUNKS)),
    "with an event of success": events({"message": "ok", "code": 20000}, *CHUNKS, {"message": "done"}),
    "in envelopes": events(*({"code": 0, "data": chunk} for chunk in CHUNKS)),
    "in envelopes of success": events(
        *({"code": "SUCCESS", "message": "ok", "result": chunk} for chunk in CHUNKS)
    ),
    "with the other name of thinking": WHOLE.replace('"reasoning":', '"reasoning_content":').replace(
        '"reasoning_content": null, ', ""
    ),
    "with comments and names": ": OPENROUTER PROCESSING\n\n"
    + WHOLE.replace("data:", "event: chunk\nid: 7\ndata:"),
    "without blanks after the colon": WHOLE.replace("data: ", "data:"),
    "with events that keep it open": "data:\n\n"
    + WHOLE.replace("\n\n", "\n\ndata: \n\ndata:\n\nevent: ping\ndata: 12:30\n\nevent: ping\ndata: {}\n\n"),
    "with heartbeats": WHOLE.replace(
        "\n\n", "\n\nevent: heartbeat\ndata: 1\n\nevent: keep-alive\ndata: 1\n\n"
    )
    + "event: keepalive\ndata: 1\n\nevent: keep_alive\ndata: 1\n\n",
    "without empty lines": WHOLE.replace("\n\n", "\n"),
    "over several lines": "".join(
        "".join(f"data: {line}\n" for line in json.dumps(piece, indent=1).splitlines()) + "\n"
        for piece in CHUNKS
    ),
    "as JSON lines": "".join(json.dumps(piece) + "\n" for piece in CHUNKS),
    "without line breaks": "".join(map(json.dumps, CHUNKS)),
    "without a finish reason": events(*CHUNKS[:-2], CHUNKS[-1]),
    "with texts so far": events(
        *(
            {"choices": [{"message": {"content": text, "reasoning": "Hm, fur."}, "finish_reason": reason}]}
            for text, reason in (("A grey", None), ("A grey cat.", "stop"))
        ),
        {"model": "tiny", "usage": USAGE},
    ),
    "JSON with an event after it": json.dumps(
        {
            "model": "tiny",
            "choices": [
                {"message": {"content": "A grey cat.", "reasoning": "Hm, fur."}, "finish_reason": "stop"}
            ],
            "usage": USAGE,
        },
        indent=2,
    )
    + "\n\ndata: [DONE]\n",
}


async def completed(name: str, raw: bytes, **generation: Any) -> Completion:
    """The answer of a backend to this raw reply."""
    async with babbling(raw) as url, KINDS[name].open(url, model="tiny") as backend:
        return await backend.complete(question(**generation))


@pytest.mark.parametrize("stream", OPENAI_STREAMS.values(), ids=OPENAI_STREAMS.keys())
async def test_a_stream_of_openais_api_is_one_answer(stream: str) -> None:
    """Text, thinking, finish reason, usage and model are those of the whole stream, in any form of it."""
    done = await completed("openai", reply(stream.encode(), "Content-Type: text/event-stream"))
    assert (done.text, done.thinking, done.finish_reason, done.model) == ("A grey cat.", 8, "stop", "tiny")
    assert (done.usage.input_tokens, done.usage.output_tokens) == (220, 4)
    assert done.warnings == ()


async def test_a_stream_keeps_all_characters() -> None:
    """Line separators of Unicode do not end an event, and a character in two halves becomes one."""
    pieces = [delta(content="a\u2028b\x85c\x1cd "), delta(content="\ud83d"), delta("stop", content="\udc31")]
    stream = "".join(f"data: {json.dumps(piece, ensure_ascii=False)}\n\n" for piece in pieces[:1])
    done = await completed("openai", reply((stream + events(*pieces[1:])).encode()))
    assert done.text == "a\u2028b\x85c\x1cd \U0001f431"


async def test_the_times_of_a_stream() -> None:
    """The times that llama.cpp's server reports in the last event are those of the answer."""
    last = {**delta("stop"), "timings": {"prompt_ms": 200, "predicted_ms": 300}}
    done = await completed("openai", reply(events(delta(content="A cat."), last).encode()))
    assert done.busy_s == 0.5


async def test_logprobs_of_a_stream_of_ollama() -> None:
    """The logprobs of all lines of Ollama are those of the answer."""
    lines = [{**line, "logprobs": [{"token": str(n), "logprob": -0.5}]} for n, line in enumerate(LINES[:2])]
    stream = "".join(json.dumps(line) + "\n" for line in (*lines, *LINES[2:]))
    done = await completed("ollama", reply(stream.encode()), logprobs=0)
    assert done.logprobs == {
        "mean": -0.5,
        "tokens": [{"token": "0", "logprob": -0.5}, {"token": "1", "logprob": -0.5}],
    }


async def test_logprobs_and_refusals_of_a_stream() -> None:
    """The logprobs of all pieces are those of the answer, and a refusal in pieces is a refusal."""
    pieces = [delta(content="A"), delta("stop", content=" cat")]
    for piece, token in zip(pieces, ("A", " cat"), strict=True):
        piece["choices"][0]["logprobs"] = {"content": [{"token": token, "logprob": -0.5}]}
    done = await completed("openai", reply(events(*pieces).encode()), logprobs=0)
    assert done.logprobs == {
        "mean": -0.5,
        "tokens": [{"token": "A", "logprob": -0.5}, {"token": " cat", "logprob": -0.5}],
    }
    refused = events(delta(refusal="I can"), delta("stop", refusal="not."))
    with pytest.raises(BackendError, match=r"the model refuses: I cannot\."):
        await completed("openai", reply(refused.encode()))
    calls = events(delta(tool_calls=[{"function": {"name": "f"}}]), delta("tool_calls"))
    with pytest.raises(BadAnswerError, match="the model called a tool"):
        await completed("openai", reply(calls.encode()))


LINES = [
    {"model": "tiny:latest", "message": {"content": "", "thinking": "Hm, fur."}, "done": False},
    {"model": "tiny:latest", "message": {"content": "A grey"}, "done": False},
    {"model": "tiny:latest", "message": {"content": " cat."}, "done": False},
    {**chat(OLLAMA, ""), "message": {"content": ""}, "eval_duration": 5},
]
NDJSON = "".join(json.dumps(line) + "\n" for line in LINES)


@pytest.mark.parametrize(
    "stream", [NDJSON, NDJSON.replace("\n", "\r\n\r\n"), NDJSON.strip(), events(*LINES, end="")]
)
async def test_a_stream_of_ollama_is_one_answer(stream: str) -> None:
    """The lines of Ollama are one answer, with the counts of the last line."""
    done = await completed("ollama", reply(stream.encode(), "Content-Type: application/x-ndjson"))
    assert (done.text, done.thinking, done.finish_reason, done.model) == ("A grey cat.", 8, "stop", "tiny")
    assert (done.usage.input_tokens, done.usage.output_tokens, done.busy_s) == (220, 4, 5e-9)


@pytest.mark.parametrize(
    ("name", "stream", "partial"),
    [
        ("openai", events(*CHUNKS[:4], end="data: done\n\n"), "A grey"),
        ("openai", events(*({"code": 0, "data": chunk} for chunk in CHUNKS[:4]), end=""), "A grey"),
        ("openai", events(*CHUNKS[:4], end=""), "A grey"),
        ("openai", events(*CHUNKS[:4], end='data: {"choices": [{"del'), "A grey"),
        ("openai", events(*CHUNKS[:4], end="data: gone\n\n") + events(*CHUNKS[5:]), "A grey cat."),
        ("openai", events(CHUNKS[0], end=""), None),
        ("ollama", "".join(json.dumps(line) + "\n" for line in LINES[:2]), "A grey"),
        ("ollama", NDJSON[: NDJSON.index(" cat.")], "A grey"),
    ],
)
async def test_a_stream_that_breaks_off_is_no_answer(name: str, stream: str, partial: str | None) -> None:
    """A stream without its end, or with a piece that cannot be read, is a transient failure with its text."""
    with pytest.raises(TransientError, match="broke off before its end") as caught:
        await completed(name, reply(stream.encode()))
    assert (caught.value.kind, caught.value.partial) == ("bad_response", partial)


ERROR = {"error": {"message": "The engine died: EngineCore", "code": 500}}


@pytest.mark.parametrize(
    ("name", "stream"),
    [
        ("openai", events(*CHUNKS[:4], ERROR, *CHUNKS[4:])),
        ("openai", events(*CHUNKS[:4], end=f"event: error\ndata: {json.dumps(ERROR['error'])}\n\n")),
        ("openai", events(*CHUNKS, end="event: error\ndata: The engine died: EngineCore\n\n")),
        ("openai", events({**CHUNKS[3], **ERROR}, *CHUNKS[5:])),
        ("openai", events({"message": "ok", "code": 0}, *CHUNKS, {"message": "The engine died: EngineCore"})),
        ("openai", events({"code": "500", "message": "The engine died: EngineCore", "data": CHUNKS[3]})),
        ("ollama", NDJSON + json.dumps({"error": "The engine died: EngineCore"})),
        ("ollama", json.dumps(LINES[1]) + "\n" + json.dumps({"error": "The engine died: EngineCore"}) + "\n"),
    ],
)
async def test_an_error_in_a_stream_decides(name: str, stream: str) -> None:
    """An error among the pieces is the failure, in the words of the server."""
    with pytest.raises(TransientError, match="the engine crashed: The engine died") as caught:
        await completed(name, reply(stream.encode()))
    assert caught.value.kind == "crash"


@pytest.mark.parametrize(
    ("name", "stream"),
    [
        ("openai", events(*CHUNKS[:4], {"error": "Provider disconnected"})),
        ("openai", events(*CHUNKS[:4], end="event: error\ndata: Provider disconnected\n\n")),
        ("openai", json.dumps(chat(OPENAI, "A grey", error="Provider disconnected"))),
        ("ollama", json.dumps(LINES[1]) + "\n" + json.dumps({"error": "Provider disconnected"})),
    ],
)
async def test_the_text_before_an_error_is_kept(name: str, stream: str) -> None:
    """The text that arrived before an error is in the failure, which says that an error was reported."""
    with pytest.raises(TransientError, match="reports an error: Provider disconnected") as caught:
        await completed(name, reply(stream.encode()))
    assert caught.value.partial == "A grey"


ENVELOPES: tuple[dict[str, Any], ...] = (
    {"code": 0, "message": "Success"},
    {"code": "200", "message": "answered"},
    {"code": 20000, "msg": "Success"},
    {"code": "SUCCESS"},
    {"success": True, "errors": []},
    {},
)


@pytest.mark.parametrize("envelope", ENVELOPES, ids=json.dumps)
@pytest.mark.parametrize("key", ["data", "result", "response", "output"])
async def test_an_answer_in_an_envelope_is_read(envelope: dict[str, Any], key: str) -> None:
    """An answer that a gateway wraps is read, unless the envelope has an error."""
    inner = chat(OPENAI, "A cat.")
    assert (await completed("openai", reply({**envelope, key: inner}))).text == "A cat."
    for bad in (
        {"code": 500, "message": "out of memory"},
        {"code": "503", "message": "out of memory"},
        {"error": "out of memory"},
    ):
        with pytest.raises(BackendError, match="out of memory"):
            await completed("openai", reply({**envelope, **bad, key: inner}))


async def test_the_error_of_a_choice_is_told() -> None:
    """An error inside a choice is told in the words of the server, and the text before it is kept."""
    failed = {"code": 502, "message": "Upstream idle timeout"}
    choice = {"message": {"content": "A grey"}, "finish_reason": "error", "error": failed}
    with pytest.raises(TransientError, match="Upstream idle timeout") as caught:
        await completed("openai", reply({"choices": [choice]}))
    assert (caught.value.kind, caught.value.partial) == ("bad_response", "A grey")


@pytest.mark.parametrize(
    "content",
    [
        [
            {"type": "thinking", "thinking": [{"type": "text", "text": "Fur."}]},
            {"type": "text", "text": "A cat."},
        ],
        [{"type": "reasoning", "text": "Fur."}, {"type": "output_text", "text": "A cat."}],
        [{"text": "A "}, {"text": "cat."}],
        ["A ", "cat."],
        {"type": "text", "text": "A cat."},
    ],
    ids=json.dumps,
)
async def test_a_text_in_parts_is_one_answer(content: object) -> None:
    """An answer in parts is read, also as a stream, and parts with thinking are no part of it."""
    whole = {"choices": [{"message": {"content": content}, "finish_reason": "stop"}]}
    for body in (json.dumps(whole), events(delta("stop", content=content))):
        assert (await completed("openai", reply(body.encode()))).text == "A cat."


@pytest.mark.parametrize(
    ("name", "body", "says"),
    [
        ("openai", {"base_resp": {"status_code": 1004}, "choices": None}, "it has: base_resp, choices"),
        ("ollama", {"response": "A cat.", "done": True}, "no message; it has: response, done"),
        ("ollama", {"choices": [{"message": {"content": "A cat."}}]}, "no message; it has: choices"),
        ("ollama", {}, "no message; it has: nothing"),
    ],
)
async def test_a_reply_without_an_answer_is_named(name: str, body: dict[str, Any], says: str) -> None:
    """A reply of another shape is a bad response that names its parts, not an empty or a broken answer."""
    with pytest.raises(TransientError, match=says) as caught:
        await completed(name, reply(body))
    assert caught.value.kind == "bad_response"


@pytest.mark.parametrize(
    "status", ["201 Created", "202 Accepted", "203 Non-Authoritative", "206 Partial", "299 x"]
)
@pytest.mark.parametrize("name", ["openai", "ollama"])
async def test_any_good_status_is_good(name: str, status: str) -> None:
    """An answer with any 2xx status is an answer, and any other reply with it is a bad response."""
    answer = chat(OLLAMA if name == "ollama" else OPENAI, "A grey cat.")
    assert (await completed(name, reply(answer, status=status))).text == "A grey cat."
    with pytest.raises(TransientError, match=f"HTTP {status[:3]}") as caught:
        await completed(name, reply(b"<html>in a moment</html>", status=status))
    assert caught.value.kind == "bad_response"


GOOD_ADDITIONS: tuple[dict[str, Any], ...] = (
    {"message": "Success", "code": 0},
    {"message": "ok", "code": 200, "error": None},
    {"error": {}},
    {"error": ""},
    {"error": False},
    {"error": 0},
    {"error": []},
    *({"error": word} for word in ("none", "null", "OK", "Success", "0", "no error")),
    {"error": {"code": None, "message": None, "type": ""}},
    {"error": {"code": 0, "message": "Success"}},
    {"error": {"code": "success", "message": "answered"}},
    {"detail": "x", "msg": "success", "status": "success"},
)
BAD_ADDITIONS: tuple[dict[str, Any], ...] = (
    {"error": "out of memory"},
    {"error": {"code": 0, "message": ""}, "object": "error", "message": "out of memory"},
    {"error": {"message": "out of memory"}},
    {"error": {"code": None, "message": "out of memory"}},
    {"error": {"code": "", "message": "out of memory"}},
    {"error": True, "message": "out of memory"},
    {"code": 500, "message": "out of memory"},
)


@pytest.mark.parametrize("more", GOOD_ADDITIONS, ids=json.dumps)
async def test_what_says_success_beside_an_answer_is_no_error(more: dict[str, Any]) -> None:
    """Words of success and empty errors next to a good answer do not matter, on both APIs and in a stream."""
    assert (await completed("openai", reply(chat(OPENAI, "A cat.", **more)))).text == "A cat."
    stream = events({**delta("stop", content="A cat."), **more})
    assert (await completed("openai", reply(stream.encode()))).text == "A cat."
    kept = {name: value for name, value in more.items() if name != "message"}
    assert (await completed("ollama", reply(chat(OLLAMA, "A cat.", **kept)))).text == "A cat."


@pytest.mark.parametrize("more", BAD_ADDITIONS, ids=json.dumps)
async def test_an_error_beside_an_answer_decides(more: dict[str, Any]) -> None:
    """An error next to an answer is an error, and so is a message without an answer."""
    with pytest.raises(BackendError, match="out of memory"):
        await completed("openai", reply(chat(OPENAI, "A cat.", **more)))
    for rest in ({"choices": []}, {"choices": None}, {"data": {"trace": 1}}, {"data": []}):
        with pytest.raises(BackendError, match="try later"):
            await completed("openai", reply({"message": "try later", "code": 0, **rest}))


async def test_a_list_of_models_may_say_success() -> None:
    """A list of models with a message of success next to it is a list of models."""
    listed = {"code": 0, "message": "Success", "data": [{"id": "tiny"}]}
    async with babbling(reply(listed)) as url, KINDS["openai"].open(url, model=None) as backend:
        assert (await backend.preflight()).model == "tiny"


@pytest.mark.parametrize(
    "text", ["", "ok", "[1]", "<html>\n{}", '{"a": ', "data:\n\n", ": x\n", "{" * 100_000]
)
def test_other_texts_are_no_stream(text: str) -> None:
    """A text that is no stream of objects is not read as one."""
    assert pieces_in(text) is None
    assert answer_in(text) is None


@pytest.mark.parametrize(
    "end", ["data: [DONE]\n\n", 'data: {"message": "Success", "code": 0}\n\n', "data: ok"]
)
async def test_a_run_over_streams_with_another_end_is_answered(photos: Photos, end: str) -> None:
    """However a stream says that it is over after its finish reason, it costs one request for each image."""
    photos(2)

    def stream(path: str, text: str) -> Raw | None:
        body = events(delta(content=text), delta("stop"), end=end)
        return Raw(body=body.encode(), kind="text/event-stream") if path == OPENAI else None

    with replying(stream) as server:
        done = await ran(backend="vllm", base_url=server.url, model="tiny")
    assert [r.completion and r.completion.text for r in done.results] == ["A grey cat."] * 2
    assert len(server.questions(OPENAI)) == 2


@pytest.mark.parametrize("backend", WIRES)
async def test_a_run_over_streams_is_answered(photos: Photos, backend: str) -> None:
    """Canaries and images are answered by a server that always streams, with one request each."""
    photos(2)

    def stream(path: str, text: str) -> Raw | None:
        if path == OPENAI:
            return Raw(body=events(delta(content=text), delta("stop")).encode(), kind="text/event-stream")
        lines = [chat(OLLAMA, text, done=False), chat(OLLAMA, "")]
        body = "".join(json.dumps(line) + "\n" for line in lines)
        return Raw(body=body.encode(), kind="application/x-ndjson") if path == OLLAMA else None

    with replying(stream) as server:
        done = await ran(backend=backend, base_url=server.url, model="tiny")
        assert not isinstance(done.error, FatalBackendError)
    assert [r.completion and r.completion.text for r in done.results] == ["A grey cat."] * 2
    assert len(server.questions(WIRES[backend])) == 2


async def test_a_run_under_another_good_status_is_answered(photos: Photos) -> None:
    """A run over a server that answers with 201 ends as with any other server."""
    photos(1)
    with replying(lambda path, text: as_json(chat(path, text), 201) if path == OPENAI else None) as server:
        done = await ran(backend="openai", base_url=server.url, model="tiny")
    assert [r.ok for r in done.results] == [True]


def test_a_stream_of_many_events_is_read_in_one_pass() -> None:
    """Fifty thousand texts after the end of an answer do not cause a search of all objects before them."""
    text = json.dumps({"done": True}) + '\n{"a": 1}' * 40_000 + "\n" + "data: x\n\n" * 50_000
    pieces = pieces_in(text)
    assert pieces is not None
    assert (len(pieces.objects), pieces.whole) == (40_001, True)


def test_a_stream_without_end_is_not_read_to_its_end() -> None:
    """A stream with more objects than any answer has tokens counts as broken off."""
    pieces = pieces_in("{}" * (MOST_PIECES + 10))
    assert pieces is not None
    assert (len(pieces.objects), pieces.whole) == (MOST_PIECES, False)
