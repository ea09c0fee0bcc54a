"""Which crashes of the engine one image was there at."""

from dataclasses import dataclass

from vlmbatch.errors import FailureKind

BROKEN_OFF: frozenset[FailureKind] = frozenset(("connection", "server_error"))
"""How a request ends whose engine dies without a word."""


@dataclass(slots=True)
class Trail:
    """The crashes of one image's requests.

    An engine that says that it crashed did; one that breaks off a request and is then found gone did,
    too. All that were in flight become suspects, which are asked about one at a time; `crashes` counts
    those at which this one was alone. A restart of the server looks like a crash, so that one alone is
    no proof.
    """

    suspect: bool = False
    crashes: int = 0
    _downs: int | None = None
    _alone: bool = False
    _cost: int = 0

    def broke(self, kind: FailureKind, *, alone: bool, counted: bool, downs: int) -> None:
        """Hear how a request failed.

        `alone`: nobody else was asked; `counted`: it cost the image an attempt; `downs`: how often so far
        nobody had been there when it was sent.
        """
        if kind == "crash":
            self._crashed(alone)
        elif kind in BROKEN_OFF:
            self._cost = counted + (self._cost if self._downs == downs else 0)
            self._downs, self._alone = downs, alone

    def refund(self, downs: int) -> int:
        """How many attempts were lost because the endpoint went down, as shows now that `downs` has grown.

        Asked before each request; told once, and counted as a crash.
        """
        if self._downs is None or downs <= self._downs:
            return 0
        self._crashed(self._alone)
        return self._cost

    def _crashed(self, alone: bool) -> None:
        self._downs = None
        self.suspect = True
        self.crashes += alone
