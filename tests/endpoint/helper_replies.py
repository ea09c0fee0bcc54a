"""Replies of any status and any body, for the requests that ask a server about itself."""

from collections.abc import Callable

from endpoint.messages import Received, Reply
from endpoint.wires import error


def status(request: Received, argument: str) -> Reply:
    """An error with the status of the argument."""
    return error(request.wire, int(argument), "not here")


def body(request: Received, argument: str) -> Reply:
    """The argument as the whole body, with status 200."""
    return Reply(status=200, body=argument.encode())


HELPER_REPLIES: dict[str, Callable[[Received, str], Reply]] = {"status": status, "body": body}
"""Modes for any route: `status:501`, `body:[]`."""
