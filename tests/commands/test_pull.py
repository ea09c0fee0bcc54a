"""A pull as the core sees it: steps, stalls, and what counts as an attempt."""

import pytest
from endpoint import Endpoint

from vlmbatch.commands.pull import Puller, Step
from vlmbatch.config import RunConfig
from vlmbatch.errors import UnavailableError


class Heard:
    """A pull whose steps and words are kept, and which never waits."""

    def __init__(self, endpoint: Endpoint, *, stalled_s: float = 30.0, **options: object) -> None:
        self.steps: list[Step] = []
        self.told: list[str] = []
        self.puller = Puller(
            config=RunConfig.of(".", base_url=endpoint.url, **options),
            wait=False,
            on_step=self.steps.append,
            on_message=self.told.append,
            sleep=self._sleep,
            stalled_s=stalled_s,
        )

    async def _sleep(self, seconds: float) -> None:
        """Time does not matter here."""


async def test_bytes_add_up_over_the_layers(endpoint: Endpoint) -> None:
    """The steps tell bytes of all layers known so far, which never go back, and the last one is the whole."""
    heard = Heard(endpoint)
    await heard.puller.pull(["llava"])
    completed = [step.completed for step in heard.steps]
    assert completed == sorted(completed)
    last = heard.steps[-1]
    assert (last.done, last.completed, last.total, last.fetched) == (True, 5_000_000, 5_000_000, 5_000_000)
    assert [step.done for step in heard.steps[:-1]] == [False] * (len(heard.steps) - 1)


async def test_what_is_there_is_not_fetched(endpoint: Endpoint) -> None:
    """A model that is present and current is done without a byte."""
    heard = Heard(endpoint)
    await heard.puller.pull(["tiny-vision"])
    assert (heard.steps[-1].done, heard.steps[-1].fetched, heard.steps[-1].total) == (True, 0, 5_000_000)


@pytest.mark.parametrize("mode", ["pull_stall", "pull_still"])
async def test_a_stall_is_told_and_ended(endpoint: Endpoint, mode: str) -> None:
    """Where no byte comes, in silence or with the same line again and again, that is told, and asked anew."""
    endpoint.pulls = [mode]
    heard = Heard(endpoint, stalled_s=0.05, timeout=0.3)
    await heard.puller.pull(["llava"])
    assert heard.told[0].startswith("no byte of llava came for")
    assert "again in" in heard.told[1]
    assert heard.steps[-1].done


async def test_attempts_that_bring_bytes_are_not_counted(endpoint: Endpoint) -> None:
    """However often the line breaks, a pull goes on as long as each attempt gets farther than all before."""
    endpoint.pulls = [f"pull_cut:{n}00000" for n in range(1, 13)]
    heard = Heard(endpoint, retries=1)
    await heard.puller.pull(["llava"])
    assert len(heard.told) == 12


async def test_attempts_that_bring_nothing_are_counted(endpoint: Endpoint) -> None:
    """A pull that breaks at the same byte each time ends."""
    endpoint.pulls = ["pull_cut:100000"] * 9
    heard = Heard(endpoint, retries=2)
    with pytest.raises(UnavailableError, match="llava is not whole"):
        await heard.puller.pull(["llava"])
    assert len(endpoint.pulls) == 9 - 4


async def test_every_endpoint_gets_every_model(endpoint: Endpoint) -> None:
    """With several addresses each of them is told to pull."""
    with Endpoint() as other:
        heard = Heard(endpoint)
        heard.puller.config = RunConfig.of(".", base_url=[endpoint.url, other.url])
        await heard.puller.pull(["llava"])
        assert "llava" in endpoint.models
        assert "llava" in other.models
    assert {step.place for step in heard.steps if step.done} == {endpoint.url, other.url}
