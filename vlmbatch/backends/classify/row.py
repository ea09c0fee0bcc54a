"""A row of the tables that classify replies."""

import re
from collections.abc import Callable, Container
from dataclasses import dataclass

from vlmbatch.errors import BackendError, Change, FailureKind


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of reply. `pattern` is searched in the text, ignoring case; `holds` must confirm a match."""

    name: str
    pattern: str
    error: type[BackendError]
    kind: FailureKind
    says: str
    hint: str = ""
    statuses: Container[int] | None = None
    change: Change = "reseed"
    holds: Callable[[str], bool] | None = None

    def fits(self, status: int, text: str) -> bool:
        """Whether this row matches the reply."""
        return (
            (self.statuses is None or status in self.statuses)
            and re.search(self.pattern, text, re.IGNORECASE) is not None
            and (self.holds is None or self.holds(text))
        )
