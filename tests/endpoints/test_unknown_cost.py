"""--max-cost with an endpoint that reports its costs or tokens in numbers that cannot be used."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from command import records, run
from replying import OPENAI, WIRES, Raw, chat, replying

Photos = Callable[..., Path]
ODD = ["NaN", "Infinity", "-1", "1e999", '"much"', "9" * 400, "9" * 5000]
PRICES = '{"tiny": {"input_cost_per_token": 1e-6, "output_cost_per_token": 1e-6}}'


def raw_chat(path: str, text: str, **texts: str) -> Raw:
    """An answer in which these keys of the usage, or of Ollama's counts, have this text for a value."""
    told = chat(path, text)
    counts = told if path != OPENAI else told["usage"]
    marks = {name: f"#{name}#" for name in texts}
    body = json.dumps(told | marks if counts is told else {**told, "usage": {**counts, **marks}})
    for name, value in texts.items():
        body = body.replace(json.dumps(marks[name]), value)
    return Raw(body=body.encode())


def spent(reply: Callable[[str, str], Raw | None], *options: str) -> tuple[int, str, list[str | None]]:
    """Exit code, messages and statuses of a run over six images, one after the other, with --max-cost 1."""
    with replying(reply) as server:
        url = server.url
        done = run(
            *(
                "run",
                "photos",
                "--base-url",
                url,
                "-m",
                "tiny",
                "-c",
                "1",
                "--max-cost",
                "1",
                "-o",
                "o.jsonl",
            ),
            *("--no-canary", "--summary", "s.json", "--metrics-file", "m.prom", "--retries", "0", *options),
        )
    assert "Traceback" not in done.stderr
    json.loads(Path("s.json").read_text(), parse_constant=pytest.fail)
    lines = Path("o.jsonl").read_text() if Path("o.jsonl").exists() else ""
    return done.returncode, done.stderr, [each["status"] for each in records(lines)]


@pytest.mark.parametrize("cost", ODD)
def test_a_cost_that_cannot_be_used_ends_a_run_with_a_limit(photos: Photos, cost: str) -> None:
    """After an answer whose reported cost cannot be used, a run with --max-cost starts no image."""
    photos(6)

    def reply(path: str, text: str) -> Raw | None:
        return raw_chat(path, text, cost=cost) if path == OPENAI else None

    code, told, statuses = spent(reply, "-b", "vllm")
    assert (code, statuses) == (6, ["ok"]), told
    assert "--max-cost cannot be kept: http://127.0.0.1" in told
    assert "sent no usable number for cost" in Path("o.jsonl").read_text()


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("backend", ["vllm", "ollama"])
def test_tokens_that_cannot_be_used_end_a_run_with_a_limit(photos: Photos, backend: str, odd: str) -> None:
    """With --prices, an answer whose tokens cannot be counted ends a run with --max-cost, too."""
    photos(6)
    Path("p.json").write_text(PRICES)
    name = "eval_count" if backend == "ollama" else "completion_tokens"

    def reply(path: str, text: str) -> Raw | None:
        return raw_chat(path, text, **{name: odd}) if path == WIRES[backend] else None

    code, told, statuses = spent(reply, "-b", backend, "--prices", "p.json")
    assert (code, statuses) == (6, ["ok"]), told


def test_a_useless_answer_without_tokens_ends_a_run_with_a_limit(photos: Photos) -> None:
    """An empty answer may cost, too: without usable tokens the first one ends the run."""
    photos(6)
    Path("p.json").write_text(PRICES)

    def reply(path: str, text: str) -> Raw | None:
        return raw_chat(path, "", prompt_tokens="NaN") if path == OPENAI else None

    code, told, statuses = spent(reply, "-b", "vllm", "--prices", "p.json")
    assert (code, statuses) == (6, []), told


def test_a_huge_cost_is_counted(photos: Photos) -> None:
    """A cost of 2**53 dollars is a number: it ends the run, and all files stay well-formed."""
    photos(6)

    def reply(path: str, text: str) -> Raw | None:
        return raw_chat(path, text, cost=str(2**53)) if path == OPENAI else None

    code, told, statuses = spent(reply, "-b", "vllm")
    assert (code, statuses) == (6, ["ok"]), told
    assert "--max-cost is reached" in told


@pytest.mark.parametrize("cost", ["null", None])
def test_a_missing_cost_after_a_reported_one_ends_a_run_with_a_limit(
    photos: Photos, cost: str | None
) -> None:
    """A server cannot pass --max-cost with a small cost for its first answer and none for the others."""
    photos(6)
    costs = iter(["0.01"])

    def reply(path: str, text: str) -> Raw | None:
        if path != OPENAI:
            return None
        now = next(costs, cost)
        return raw_chat(path, text, **({} if now is None else {"cost": now}))

    code, told, statuses = spent(reply, "-b", "vllm")
    assert (code, statuses) == (6, ["ok", "ok"]), told
    assert "--max-cost cannot be kept: http://127.0.0.1" in told


def test_an_endpoint_without_costs_needs_none(photos: Photos) -> None:
    """A server that reports no cost at all, and has no price, costs nothing: the run goes on."""
    photos(6)
    code, told, statuses = spent(lambda path, text: None, "-b", "vllm")
    assert (code, len(statuses)) == (0, 6), told
