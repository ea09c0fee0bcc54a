"""Runs with an endpoint that fails for the third of six images, or for all of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from endpoint import Endpoint, Received
from outages import back
from running import Ran, ran

from vlmbatch.errors import FailureKind, FatalBackendError, UnavailableError
from vlmbatch.events import EndpointPaused, EndpointResumed

IMAGES = 6
Photos = Callable[..., Path]


class Failing:
    """Runs with six photos, the endpoint and one backend."""

    def __init__(self, photos: Photos, endpoint: Endpoint, backend: str) -> None:
        photos(IMAGES)
        self.endpoint = endpoint
        self.options = {"backend": backend, "base_url": endpoint.url, "model": "tiny-vision"}

    async def run(self, **options: Any) -> Ran:
        """One run with these options in addition to the usual ones."""
        return await ran(**{"concurrency": 2, **self.options, **options})

    async def passes(self, *modes: str, attempts: int | None = None) -> Ran:
        """The replies from the third one on have these `modes`; an outage ends once it is noticed.

        All images are answered in the end.
        """
        left = ["ok", "ok", *modes]
        self.endpoint.script = lambda request: left.pop(0) if left else "ok"
        done = await self.run(on_event=back(self.endpoint))
        assert done.error is None
        assert [r.failure for r in done.results if r.failure] == []
        assert len(done.ids) == len(set(done.ids)) == IMAGES
        if attempts is not None:
            assert max(r.attempts for r in done.results) == attempts
        return done

    async def pauses(self, mode: str) -> Ran:
        """One reply in this mode pauses the run; no image loses an attempt, and all are answered."""
        done = await self.passes(mode, attempts=1)
        assert [type(e) for e in done.events if isinstance(e, EndpointPaused | EndpointResumed)] == [
            EndpointPaused,
            EndpointResumed,
        ]
        return done

    async def fails_alone(self, mode: str, kind: FailureKind, *, requests: int = 1) -> Ran:
        """One image gets this mode for each of its `requests`: it fails, and all other ones are answered."""
        asked: list[str] = []

        def script(request: Received) -> str:
            picture = request.pictures[0].sha256
            if picture not in asked:
                asked.append(picture)
            return mode if asked[2:3] == [picture] else "ok"

        self.endpoint.script = script
        done = await self.run(concurrency=1)
        assert done.error is None
        assert [r.failure.kind for r in done.results if r.failure] == [kind]
        assert (len(done.results), len(self.endpoint.questions)) == (IMAGES, IMAGES - 1 + requests)
        return done

    async def ends(self, mode: str, kind: FailureKind) -> Ran:
        """The first reply in this mode ends the run with exit code 2, without a record."""
        self.endpoint.script = lambda request: mode
        done = await self.run()
        assert isinstance(done.error, FatalBackendError)
        assert (done.error.kind, done.results) == (kind, [])
        assert len(self.endpoint.questions) <= 4
        return done

    async def gives_up(self, mode: str, **options: object) -> Ran:
        """All replies have this mode: the run ends with exit code 4, without a record."""
        self.endpoint.script = lambda request: mode
        self.endpoint.canary = mode
        done = await self.run(give_up_after=0.3, **options)
        assert isinstance(done.error, UnavailableError)
        assert done.results == []
        return done
