"""Ends an outage of a test endpoint when the run has noticed it: a run that stalls cannot miss it."""

from collections.abc import Callable

from endpoint import Endpoint

from vlmbatch.events import EndpointPaused, Event


def back(endpoint: Endpoint) -> Callable[[Event], None]:
    """An observer that makes the endpoint listen again as soon as the run pauses.

    Not for outages that break off five requests or more: they pause the run before it tries a connection.
    """

    def act(event: Event) -> None:
        if isinstance(event, EndpointPaused):
            endpoint.up()

    return act
