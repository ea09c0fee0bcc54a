"""--dry-run --probe: a few images are sent, and give an estimate for all of them."""

import json
import os
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
from command import run
from endpoint import Endpoint, Received
from endpoint.wires import Model
from inside import called
from PIL import Image

from vlmbatch.commands import estimate
from vlmbatch.commands.dry_run import dry_run
from vlmbatch.commands.estimate import ProbeResult
from vlmbatch.config import RunConfig
from vlmbatch.endpoints.cost import Price, Prices
from vlmbatch.errors import ConfigError
from vlmbatch.records import Usage

Photos = Callable[..., Path]


def arguments(endpoint: Endpoint, *more: str) -> tuple[str, ...]:
    return ("run", "photos", "--dry-run", "-b", "ollama", "--base-url", endpoint.url, *more)


def test_a_few_images_give_an_estimate(photos: Photos, endpoint: Endpoint) -> None:
    """--probe 3 sends three of twenty images, and the estimate is twenty thirds of their time and tokens."""
    photos(20)
    done = run(*arguments(endpoint, "--probe", "3", "-o", "o.jsonl"))
    assert (done.returncode, done.stdout) == (0, "")
    assert len(endpoint.questions) == 3
    assert "sent 3 images to tiny-vision" in done.stderr
    told = re.search(
        r"all 20 images: about .*, ([\d,]+) tokens in, ([\d,]+) out \((\d+) tokens in", done.stderr
    )
    assert told is not None
    tokens, _, each = (int(number.replace(",", "")) for number in told.groups())
    assert tokens == pytest.approx(20 * each, abs=20)
    assert not Path("o.jsonl").exists()
    assert "nothing was recorded" in done.stderr


def test_the_images_are_a_random_sample(photos: Photos) -> None:
    """The sample has the requested size, is the same each time, spans the folder and has no broken image."""
    folder = photos(100)
    (folder / "a-bad.jpg").write_text("no image")
    chosen = RunConfig.of("photos", backend="ollama", dry_run=True, probe=10)
    sample = dry_run(chosen, print).sample
    assert sample == dry_run(chosen, print).sample
    assert len(set(sample)) == 10
    assert "photos/a-bad.jpg" not in sample
    assert sum(image > "photos/p0050.jpg" for image in sample) >= 2
    assert dry_run(RunConfig.of("photos", backend="ollama", dry_run=True, probe=500), print).sample


def test_a_price_makes_it_a_cost(photos: Photos, endpoint: Endpoint) -> None:
    """With --prices the estimate has the cost of the run, even if the price list names a provider too."""
    photos(10)
    prices = {"some/tiny-vision": {"input_cost_per_token": 0.01, "output_cost_per_token": 0.02}}
    Path("prices.json").write_text(json.dumps(prices))
    done = called(*arguments(endpoint, "--probe", "2", "--prices", "prices.json"))
    assert done.returncode == 0, done.stderr
    tokens = re.search(r"([\d,]+) tokens in, ([\d,]+) out", done.stderr)
    cost = re.search(r"cost: about \$([\d,.]+)", done.stderr)
    assert tokens is not None
    assert cost is not None
    counted = [int(number.replace(",", "")) for number in tokens.groups()]
    assert float(cost[1].replace(",", "")) == pytest.approx(0.01 * counted[0] + 0.02 * counted[1], abs=0.01)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "No such file"),
        ("not json", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ('{"other": {}}', "has no usable price for tiny-vision"),
        ('{"tiny-vision": {"input_cost_per_token": "x"}}', "has no usable price for tiny-vision"),
        ('{"tiny-vision": 7}', "has no usable price for tiny-vision"),
        ("[]", "has no usable price for tiny-vision"),
    ],
)
def test_unusable_prices_are_refused_before_any_request(
    photos: Photos, endpoint: Endpoint, content: str | None, told: str
) -> None:
    """An unusable price file exits 2 before any request, and the message says what is wrong."""
    photos(1)
    if content is not None:
        Path("prices.json").write_text(content)
    done = called(*arguments(endpoint, "-m", "tiny-vision", "--probe", "1", "--prices", "prices.json"))
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert not endpoint.questions


def test_failures_are_shown(photos: Photos, endpoint: Endpoint) -> None:
    """Refused images are named, and there is no estimate if no image was answered."""
    photos(3)
    endpoint.script = lambda _: "400"
    done = called(*arguments(endpoint, "--probe", "2"))
    assert done.returncode == 0
    assert "2 images" in done.stderr
    assert "0 answered" in done.stderr
    assert "rejected" in done.stderr
    assert "no image was answered, so there is no estimate" in done.stderr


def test_without_an_endpoint_it_ends_as_a_run_would(photos: Photos, endpoint: Endpoint) -> None:
    """Without an endpoint --probe exits 4, after the lines of the dry run."""
    photos(2)
    endpoint.down()
    done = called(*arguments(endpoint, "--probe", "1", "--give-up-after", "0"))
    assert done.returncode == 4
    assert "images: 2" in done.stderr


def test_time_and_tokens_are_those_of_the_images(
    photos: Photos, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time excludes the canaries, retried images are reported, and a broken image is counted as sent."""
    folder = photos(3)
    Image.new("RGB", (64, 48)).save(folder / "z.png")
    broken = bytearray((folder / "z.png").read_bytes())
    broken[-20] ^= 0xFF  # its header is intact, its pixels are not
    (folder / "z.png").write_bytes(broken)
    passed = [0.0]

    def taking(seconds: float, answer: Callable[[Received], str]) -> Callable[[Received], str]:
        def late(request: Received) -> str:
            passed[0] += seconds
            return answer(request)

        return late

    monkeypatch.setattr(estimate, "time", SimpleNamespace(monotonic=lambda: passed[0]))
    endpoint.answer_canary = taking(100, endpoint.answer_canary)
    endpoint.answer = taking(1, endpoint.answer)
    endpoint.script = ["empty"]
    done = called(*arguments(endpoint, "--probe", "9"))
    assert done.returncode == 0, done.stderr
    assert "sent 4 images to tiny-vision" in done.stderr
    assert "3 answered in 3.0 s" in done.stderr
    assert "retried images: 1" in done.stderr


def test_the_rate_limit_bounds_the_pace(photos: Photos, endpoint: Endpoint) -> None:
    """With --rpm 10 the estimate for forty images is four minutes, however fast the endpoint is."""
    photos(40)
    done = called(*arguments(endpoint, "--probe", "1", "--rpm", "10"))
    assert "all 40 images: about 4m 00s" in done.stderr


def test_a_prompt_that_can_be_read_once_is_enough(photos: Photos, endpoint: Endpoint) -> None:
    """A prompt file that can be read only once, such as a FIFO, gives both the shown and the sent prompt."""
    photos(1)
    os.mkfifo("prompt")
    with ThreadPoolExecutor() as threads:
        threads.submit(Path("prompt").write_text, "How many?")
        done = called(*arguments(endpoint, "--probe", "1", "--prompt-file", "prompt"))
    assert done.returncode == 0, done.stderr
    assert "prompt: How many?" in done.stderr
    assert ["How many?" in str(question.body) for question in endpoint.questions] == [True]


def test_a_probe_that_never_begins_says_so(photos: Photos, endpoint: Endpoint) -> None:
    """--probe exits 6 with a message if the time limit passes while the endpoint is down."""
    photos(1)
    endpoint.down()
    done = run(*arguments(endpoint, "--probe", "1", "--max-duration", "1"))
    assert done.returncode == 6
    assert "no image was sent before the time limit" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_probe_shows_a_pause(photos: Photos, endpoint: Endpoint) -> None:
    """--probe shows a pause while the server is still loading."""
    photos(1)
    endpoint.canary = "503-loading"

    def load() -> None:
        endpoint.until(lambda: bool(endpoint.canaries))
        endpoint.canary = "ok"

    with ThreadPoolExecutor() as threads:
        threads.submit(load)
        done = called(*arguments(endpoint, "--probe", "1"))
    assert "paused: " in done.stderr


def test_a_model_that_only_the_endpoint_knows_is_no_mistake(photos: Photos, endpoint: Endpoint) -> None:
    """--image-tokens works in a dry run if only the endpoint knows the family of the model."""
    photos(1)
    endpoint.models["mine"] = Model(family="qwen25vl")
    done = called(*arguments(endpoint, "-m", "mine", "--image-tokens", "100", "--probe", "1"))
    assert done.returncode == 0, done.stderr
    assert "1 answered" in done.stderr


def test_an_empty_folder_sends_nothing(photos: Photos, endpoint: Endpoint) -> None:
    """--probe with an empty folder exits 0, sends no request, and says that a run would exit with 2."""
    photos(0)
    done = called(*arguments(endpoint, "--probe", "5"))
    assert done.returncode == 0
    assert "the run would end with exit code 2: no image below photos: 0 files" in done.stderr
    assert "nothing was sent" in done.stderr
    assert not endpoint.requests


@pytest.mark.parametrize(
    "options", [{"probe": 3}, {"dry_run": True, "probe": 0}, {"dry_run": True, "prices": "p"}]
)
def test_options_that_belong_together(options: dict[str, object]) -> None:
    """--probe needs --dry-run, and --prices with --dry-run needs --probe."""
    with pytest.raises(ConfigError, match="--probe"):
        RunConfig.of("photos", **options)


def test_copies_are_not_counted_twice(photos: Photos, endpoint: Endpoint) -> None:
    """Duplicates are shown and not part of the estimate, unless --no-dedupe is set."""
    folder = photos(4)
    for n in range(6):
        (folder / f"copy{n}.jpg").write_bytes((folder / "p0000.jpg").read_bytes())
    done = called(*arguments(endpoint, "--probe", "2"))
    assert "duplicates: 6" in done.stderr
    assert "all 4 images" in done.stderr
    assert "all 10 images" in called(*arguments(endpoint, "--probe", "2", "--no-dedupe")).stderr


def test_arithmetic() -> None:
    """Time and tokens grow with the number of images, and both are None without an answer."""
    usage = Usage(input_tokens=300, output_tokens=30)
    asked = ProbeResult(model="m", answered=3, failures=(), repeated=0, seconds=6, concurrency=2, usage=usage)
    assert asked.whole_s(10) == 20
    assert asked.tokens(10) == Usage(input_tokens=1000, output_tokens=100)
    assert Price(input=1e-3, output=1e-2).of(usage) == pytest.approx(0.6)
    none = ProbeResult(
        model="m", answered=0, failures=("x",), repeated=0, seconds=0, concurrency=1, usage=Usage()
    )
    assert none.whole_s(10) is None
    assert none.tokens(10) is None


def test_a_price_is_found_by_its_name(tmp_path: Path) -> None:
    """A price for the exact name is used before one with a provider in front."""
    path = tmp_path / "p.json"
    cheap = {"input_cost_per_token": 1, "output_cost_per_token": 2}
    path.write_text(json.dumps({"a/m": {"input_cost_per_token": 9, "output_cost_per_token": 9}, "m": cheap}))
    assert Prices(str(path)).of("m") == Price(input=1, output=2)
    assert Prices(str(path)).of("m:latest") == Price(input=1, output=2)
    with pytest.raises(ConfigError, match="no usable price for"):
        Prices(str(path)).of("other")
