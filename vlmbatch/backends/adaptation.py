"""Adapts requests to what an endpoint accepts: a refused parameter is left out or changed, and sent again."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Generic, Protocol, Self, TypeVar

from vlmbatch.backends.classify.refusals import Omissions, refusal_in
from vlmbatch.errors import BackendError
from vlmbatch.records import Generation

T = TypeVar("T")
Form = TypeVar("Form", bound="RequestForm")


class RequestForm(Protocol):
    """What the body of a request has, apart from the request itself. It is immutable."""

    def after_refusal(self, error: BackendError, generation: Generation) -> Self | None:
        """The form for the next attempt; None if this error refuses nothing that can be changed."""

    def restored(self, first: Self, error: BackendError, generation: Generation) -> Self:
        """The form after a final refusal: changes since `first` that did not help are undone."""


class Adaptation(Generic[Form]):
    """The form of the requests to one endpoint, which all requests in flight share."""

    def __init__(self, form: Form) -> None:
        self.form = form

    async def send(self, generation: Generation, attempt: Callable[[], Awaitable[T]]) -> T:
        """The result of `attempt`, which sends a request in the current form; repeated after each change.

        Raises:
            BackendError: the error of the last attempt, after which nothing is left to change.
        """
        first = self.form
        while True:
            used = self.form
            try:
                return await attempt()
            except BackendError as error:
                changed = used.after_refusal(error, generation)
                if changed is None:
                    self.form = self.form.restored(first, error, generation)
                    raise
            if self.form is used:  # else another request has changed it meanwhile
                self.form = changed


@dataclass(frozen=True, slots=True, kw_only=True)
class OptionalParameters:
    """The form of requests in which parameters are only left out.

    `names` has each parameter that may be left out, with its names in a refusal.
    """

    names: Mapping[str, Iterable[str]]
    omissions: Omissions

    @property
    def refused(self) -> frozenset[str]:
        """The parameters to leave out."""
        return self.omissions.refused

    def after_refusal(self, error: BackendError, generation: Generation) -> Self | None:
        """See RequestForm."""
        omissions = self.omissions.after(refusal_in(error), self.names)
        return None if omissions is None else replace(self, omissions=omissions)

    def restored(self, first: Self, error: BackendError, generation: Generation) -> Self:
        """See RequestForm."""
        omissions = self.omissions.restored(first.omissions, refusal_in(error), self.names)
        return self if omissions is self.omissions else replace(self, omissions=omissions)

    def warnings(self, generation: Generation) -> tuple[str, ...]:
        """Warnings about the parameters that the request lacked."""
        return self.omissions.warnings(generation)
