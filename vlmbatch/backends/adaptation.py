"""Adapts requests to what an endpoint accepts: a refused parameter is left out or changed, and sent again."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Generic, Protocol, Self, TypeVar

from vlmbatch.backends.classify.refusals import Omissions, refusal_in
from vlmbatch.errors import BackendError
from vlmbatch.records import Generation

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

    def attempts(self, generation: Generation) -> "Attempts[Form]":
        """The attempts of one request with these options."""
        return Attempts(self, generation)


class Attempts(Generic[Form]):
    """The attempts of one request: each is a ``with`` block that sends it in the current form.

    After a refusal that changes the form the block ends without an error, and another attempt has to follow.
    """

    def __init__(self, adaptation: Adaptation[Form], generation: Generation) -> None:
        self.are_over = False
        self._adaptation = adaptation
        self._generation = generation
        self._first = self._used = adaptation.form

    def __enter__(self) -> None:
        self._used = self._adaptation.form

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, BackendError):
            self.are_over = True
            return False
        shared = self._adaptation
        changed = self._used.after_refusal(error, self._generation)
        if changed is None:
            shared.form = shared.form.restored(self._first, error, self._generation)
            return False
        if shared.form is self._used:  # else another request has changed it meanwhile
            shared.form = changed
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class OptionalParameters:
    """The form of requests in which parameters are only left out.

    `names` has each parameter that may be left out, with its names in a refusal.
    """

    names: Mapping[str, Iterable[str]]
    omissions: Omissions

    @property
    def refused(self) -> frozenset[str]:
        """The parameters to leave out, except those that the user chose for a request."""
        return self.omissions.refused

    def after_refusal(self, error: BackendError, generation: Generation) -> Self | None:
        """See RequestForm."""
        omissions = self.omissions.after(refusal_in(error), self._names(generation))
        return None if omissions is None else replace(self, omissions=omissions)

    def restored(self, first: Self, error: BackendError, generation: Generation) -> Self:
        """See RequestForm."""
        omissions = self.omissions.restored(first.omissions, refusal_in(error), self._names(generation))
        return self if omissions is self.omissions else replace(self, omissions=omissions)

    def warnings(self, generation: Generation) -> tuple[str, ...]:
        """Warnings about the parameters that the request lacked."""
        return self.omissions.warnings(generation)

    def _names(self, generation: Generation) -> Mapping[str, Iterable[str]]:
        """The parameters that such a request may lack: none that the user chose."""
        return {name: names for name, names in self.names.items() if name not in generation.given}
