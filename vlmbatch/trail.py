"""Which crashes of the engine one image was there at."""

from dataclasses import dataclass

from vlmbatch.errors import FailureKind

BROKEN_OFF: frozenset[FailureKind] = frozenset(("connection", "server_error"))
"""How a request ends whose engine dies without a word."""
TOLD = 2
"""So many crashes that the engine tells of, and nothing else was asked, are the image's doing."""
FOUND = 4
"""So many times to find it gone without a word: it may have been restarted, and where that happens every few
seconds (benchmarks/soak.py), it meets one image twice by chance."""


@dataclass(slots=True)
class Trail:
    """The crashes of one image's requests.

    An engine that says that it crashed did; one that breaks off a request and is then found gone did,
    too. All that were in flight become suspects, which are asked about one at a time; `told` and `found`
    count those at which this one was alone. A restart of the server looks like a crash, so that one alone
    is no proof.
    """

    suspect: bool = False
    told: int = 0
    found: int = 0
    _downs: int | None = None
    _alone: bool = False
    _cost: int = 0

    @property
    def guilty(self) -> bool:
        """Whether the engine crashes because of this image."""
        return self.told >= TOLD or self.told + self.found >= FOUND

    def broke(self, kind: FailureKind, *, alone: bool, counted: bool, downs: int) -> None:
        """Hear how a request failed.

        `alone`: nobody else was asked; `counted`: it cost the image an attempt; `downs`: how often so far
        nobody had been there when it was sent.
        """
        if kind == "crash":
            self._crashed()
            self.told += alone
        elif kind in BROKEN_OFF:
            self._cost = counted + (self._cost if self._downs == downs else 0)
            self._downs, self._alone = downs, alone

    def refund(self, downs: int) -> int:
        """How many attempts were lost because the endpoint went down, as shows now that `downs` has grown.

        Asked before each request; told once, and counted as a crash.
        """
        if self._downs is None or downs <= self._downs:
            return 0
        self._crashed()
        self.found += self._alone
        return self._cost

    def _crashed(self) -> None:
        self._downs = None
        self.suspect = True
