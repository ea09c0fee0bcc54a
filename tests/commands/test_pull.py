"""The pull of a model: its steps, its stalls, and the attempts that count."""

import pytest
from endpoint import Endpoint

from vlmbatch.commands.pull import Puller, Step
from vlmbatch.config import RunConfig
from vlmbatch.errors import UnavailableError


class RecordedPull:
    """A pull that records its steps and messages, and never waits."""

    def __init__(
        self, endpoint: Endpoint, *, stalled_s: float = 30.0, wait: bool = False, **options: object
    ) -> None:
        self.steps: list[Step] = []
        self.told: list[str] = []
        self.puller = Puller(
            config=RunConfig.of(".", base_url=endpoint.url, **options),
            wait=wait,
            on_step=self.steps.append,
            on_message=self.told.append,
            sleep=self._sleep,
            stalled_s=stalled_s,
        )

    async def _sleep(self, seconds: float) -> None:
        """Return at once."""


async def test_bytes_add_up_over_the_layers(endpoint: Endpoint) -> None:
    """The completed bytes of the steps cover all layers and never decrease, and the last step is complete."""
    pull = RecordedPull(endpoint)
    await pull.puller.pull(["llava"])
    completed = [step.completed for step in pull.steps]
    assert completed == sorted(completed)
    last = pull.steps[-1]
    assert (last.done, last.completed, last.total, last.fetched) == (True, 5_000_000, 5_000_000, 5_000_000)
    assert [step.done for step in pull.steps[:-1]] == [False] * (len(pull.steps) - 1)


async def test_a_present_model_is_not_fetched(endpoint: Endpoint) -> None:
    """The pull of a model that is present and current ends without fetching a byte."""
    pull = RecordedPull(endpoint)
    await pull.puller.pull(["tiny-vision"])
    assert (pull.steps[-1].done, pull.steps[-1].fetched, pull.steps[-1].total) == (True, 0, 5_000_000)


@pytest.mark.parametrize(
    "name", ["tiny-vision", "Tiny-Vision:latest", "registry.ollama.ai/library/tiny-vision"]
)
async def test_with_wait_a_present_model_needs_no_network(endpoint: Endpoint, name: str) -> None:
    """With --wait, no pull request is sent for a model that Ollama lists under any form of its name."""
    pull = RecordedPull(endpoint, wait=True)
    await pull.puller.pull([name, "llava"])
    assert [request.model for request in endpoint.requests if request.path == "/api/pull"] == ["llava"]
    assert (pull.steps[0].model, pull.steps[0].done, pull.steps[0].fetched) == (name, True, 0)


@pytest.mark.parametrize("mode", ["404-route", "403-empty", "500", "html200", "rst"])
async def test_a_list_that_fails_ends_no_pull(endpoint: Endpoint, mode: str) -> None:
    """If Ollama is up and sends no list of its models, the model is pulled."""
    endpoint.routes["/api/tags"] = mode
    pull = RecordedPull(endpoint, wait=True)
    await pull.puller.pull(["llava"])
    assert pull.steps[-1].done


@pytest.mark.parametrize("mode", ["503-loading", "500", "rst", "html502"])
async def test_wait_lasts_while_ollama_gives_neither_list_nor_version(endpoint: Endpoint, mode: str) -> None:
    """With --wait, no model is pulled while the requests for list and version both fail; then it is."""
    endpoint.routes = {"/api/tags": mode, "/api/version": mode}
    pull = RecordedPull(endpoint, wait=True)

    async def recover(_seconds: float) -> None:
        endpoint.routes.clear()

    pull.puller.sleep = recover
    await pull.puller.pull(["llava"])
    assert [message[:19] for message in pull.told] == ["waiting for up to 1"]
    assert pull.steps[-1].done


@pytest.mark.parametrize("mode", ["pull_stall", "pull_still"])
async def test_a_stall_is_reported_and_ended(endpoint: Endpoint, mode: str) -> None:
    """A stalled pull, silent or with the same line repeated, is reported and retried."""
    await RecordedPull(endpoint).puller.pull(["tiny-vision"])  # the import of the ollama package takes long
    endpoint.pulls = [mode]
    pull = RecordedPull(endpoint, stalled_s=0.05, timeout=1)
    await pull.puller.pull(["llava"])
    assert "check the network" in pull.told[0]
    assert "; retry in" in pull.told[-1]
    assert pull.steps[-1].done


async def test_attempts_that_fetch_bytes_are_not_counted(endpoint: Endpoint) -> None:
    """A pull goes on beyond --retries as long as each attempt gets farther than all earlier ones."""
    endpoint.pulls = [f"pull_cut:{n}00000" for n in range(1, 13)]
    pull = RecordedPull(endpoint, retries=1)
    await pull.puller.pull(["llava"])
    assert len(pull.told) == 12


async def test_attempts_that_fetch_nothing_are_counted(endpoint: Endpoint) -> None:
    """A pull that breaks at the same byte each time ends after --retries attempts."""
    endpoint.pulls = ["pull_cut:100000"] * 9
    pull = RecordedPull(endpoint, retries=2)
    with pytest.raises(UnavailableError, match="the download of llava is incomplete"):
        await pull.puller.pull(["llava"])
    assert len(endpoint.pulls) == 9 - 4


async def test_every_endpoint_gets_every_model(endpoint: Endpoint) -> None:
    """With several --base-url every endpoint pulls every model."""
    with Endpoint() as other:
        pull = RecordedPull(endpoint)
        pull.puller.config = RunConfig.of(".", base_url=[endpoint.url, other.url])
        await pull.puller.pull(["llava"])
        assert "llava" in endpoint.models
        assert "llava" in other.models
    assert {step.place for step in pull.steps if step.done} == {endpoint.url, other.url}
