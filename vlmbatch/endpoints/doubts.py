"""Doubts about an endpoint that has never answered an image: the endpoint may be wrong, and not the image."""

from vlmbatch.endpoints.endpoint import PooledEndpoint
from vlmbatch.endpoints.pool import EndpointPool
from vlmbatch.errors import (
    BackendError,
    BadAnswerError,
    FatalBackendError,
    InternalError,
    RejectedError,
    TransientError,
)

MOST_FAILED = 3
"""An endpoint without an answer is lost after it failed this many images that another endpoint answered."""


class Doubts:
    """The endpoints that failed one image in a doubtful way before they had ever answered any image.

    A failure is doubtful if it is a refusal in unknown words, or a reply that vlmbatch cannot handle.
    """

    def __init__(self) -> None:
        self._odd: dict[PooledEndpoint, FatalBackendError] = {}
        """Each has the error with which it is lost if it gives no answer."""

    def judged(self, pool: EndpointPool, endpoint: PooledEndpoint, error: BackendError) -> BackendError:
        """The error to handle: a temporary one if another endpoint of this rank may answer the image."""
        error.args = (endpoint.backend.masked(str(error)),)
        endpoint.has_answered = endpoint.has_answered or isinstance(error, BadAnswerError)
        is_refusal = isinstance(error, RejectedError) and error.by_status
        if endpoint.has_answered or not (is_refusal or isinstance(error, InternalError)):
            return error
        told = (
            "this endpoint answered no image, and other endpoints answered the images that it "
            f"failed: {error}"
        )
        self._odd[endpoint] = FatalBackendError(told, kind=error.kind)
        if any(other.rank == endpoint.rank and self._may_answer(other) for other in pool):
            error.with_traceback(None)  # its frames hold the picture, as long as the new error lives
            return TransientError(str(error), kind=error.kind)
        return error

    def _may_answer(self, other: PooledEndpoint) -> bool:
        if other in self._odd or other.leaving or other.end is not None:
            return False
        return other.away is None or other.has_answered

    def answered(self, pool: EndpointPool, endpoint: PooledEndpoint) -> None:
        """This endpoint has answered the image; one of its rank that failed several such images is lost."""
        endpoint.has_answered = True
        for odd, error in self._odd.items():
            odd.failed += odd.rank == endpoint.rank
            if odd.failed >= MOST_FAILED and not odd.has_answered:
                pool.lose(odd, error)
