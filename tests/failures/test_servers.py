"""Failures of llama.cpp's server and of hosted endpoints, by their number in docs/failures.md."""

from collections.abc import Callable
from pathlib import Path

import pytest
from endpoint import Endpoint
from failing import Failing

Photos = Callable[..., Path]


@pytest.fixture
def failing(photos: Photos, endpoint: Endpoint) -> Failing:
    """Runs over six photos."""
    return Failing(photos, endpoint, "vllm")


async def test_l1_loading(failing: Failing) -> None:
    """A 503 of a server that loads pauses the run, and all images are answered."""
    await failing.pauses("503-loading")


async def test_l2_no_mmproj(failing: Failing) -> None:
    """A model without its vision part ends the run, although the reply is a 500."""
    assert "--mmproj" in str((await failing.ends("no_mmproj", "no_vision")).error)


async def test_l3_undecodable(failing: Failing) -> None:
    """A picture that the server cannot decode fails alone."""
    await failing.fails_alone("undecodable", "rejected")


async def test_l4_context_in_200(failing: Failing) -> None:
    """A full context that is reported under status 200 is retried with a smaller picture."""
    done = await failing.passes("context_in_200", attempts=2)
    assert any("smaller picture" in w for r in done.results for w in r.warnings)


async def test_l5_wrong_form(failing: Failing) -> None:
    """A request in a form that the server does not accept ends the run."""
    await failing.ends("bad_url", "wrong_url")


async def test_l7_loop(failing: Failing) -> None:
    """A looping answer is retried at another temperature, and --accept loop accepts it."""
    done = await failing.passes("loop", attempts=2)
    assert any("temperature" in w for r in done.results for w in r.warnings)
    failing.endpoint.script = lambda request: "loop"
    assert all(r.ok for r in (await failing.run(accept="loop")).results)


async def test_l8_the_record_names_the_real_model(photos: Photos) -> None:
    """If the server has one model, the record names the model that it lists."""
    with Endpoint(owned_by="llamacpp", props={"total_slots": 4, "modalities": {"vision": True}}) as endpoint:
        failing = Failing(photos, endpoint, "vllm")
        done = await failing.run()
    assert {r.to_record()["model"] for r in done.results} == {"tiny-vision"}


async def test_l9_half_a_picture_is_never_sent(failing: Failing) -> None:
    """Half a JPEG, which engines would caption, fails and is not sent."""
    whole = Path("photos/p0000.jpg").read_bytes()
    Path("photos/half.jpg").write_bytes(whole[: len(whole) // 2])
    done = await failing.run()
    assert [r.failure.kind for r in done.results if r.failure] == ["bad_image"]
    assert len(failing.endpoint.questions) == 6


async def test_p1_input_filter(failing: Failing) -> None:
    """A picture that an input filter refuses fails alone, without a retry."""
    await failing.fails_alone("input_filter", "refused")


async def test_p2_refusals(failing: Failing) -> None:
    """A filtered answer and a refusal in its own field fail alone."""
    for mode in ("content_filter", "refusal"):
        failing.endpoint.requests.clear()
        await failing.fails_alone(mode, "refused")


async def test_p4_used_up_account(failing: Failing) -> None:
    """An account without money ends the run, with status 429 or 402."""
    for mode in ("insufficient_quota", "402"):
        failing.endpoint.requests.clear()
        await failing.ends(mode, "quota")
