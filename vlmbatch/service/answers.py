"""From a question with images to the reply that a client gets."""

import json
from collections.abc import Sequence
from typing import Any

from starlette.responses import Response

from vlmbatch.errors import (
    BackendError,
    Busy,
    ResourceError,
    SessionClosed,
    VlmbatchError,
)
from vlmbatch.pipeline.question import Question
from vlmbatch.records import Result
from vlmbatch.service.call import Call
from vlmbatch.service.models import ServedModel
from vlmbatch.service.problems import AGAIN_S, STATUS, Problem, out_of_resources


async def answered(
    served: ServedModel, pictures: Sequence[bytes], question: Question, name: str, call: Call
) -> Result:
    """The result for these images in one request; a failure of the model is a result, too.

    Raises:
        Problem: no endpoint can answer now, or the service is full.
    """
    try:
        return await served.session.answer(pictures, question, image_id=name, deadline_s=call.left_s)
    except Busy as error:
        raise Problem("overloaded", "too many requests wait for this model; try again later") from error
    except SessionClosed as error:
        raise Problem("stopping", "the service is stopping; try again later") from error
    except BackendError as error:
        raise Problem(error.kind, str(error)) from error
    except ResourceError as error:
        raise out_of_resources() from error
    except VlmbatchError as error:
        raise Problem("internal", str(error)) from error


def status_of(result: Result) -> int:
    """The HTTP status of a result."""
    return 200 if result.failure is None else STATUS[result.failure.kind]


def body_of(result: Result, call: Call) -> dict[str, Any]:
    """The record of the result with `result`, the answer as text, and the id of the request."""
    return {"result": result.text, **result.to_record(), "request_id": call.request_id}


def reply(result: Result, call: Call, **more: Any) -> Response:
    """The reply to a request about one image, with `more` fields."""
    status = call.status = status_of(result)
    headers = {"Retry-After": str(AGAIN_S[status])} if status in AGAIN_S else {}
    return json_reply(body_of(result, call) | more, status, headers)


def note(result: Result, call: Call) -> None:
    """Tell the log and the metrics about a result."""
    call.model = result.completion.model if result.completion else result.endpoint.model
    call.cached = result.is_known
    call.results.append(result)
    if result.failure is not None:
        call.kind = result.failure.kind
    elif result.text is not None:
        call.answer_chars = (call.answer_chars or 0) + len(result.text)


def json_reply(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A JSON reply; ASCII only, since a model may write a lone surrogate."""
    body = json.dumps(value, separators=(",", ":"), allow_nan=False).encode("ascii")
    return Response(body, status, headers, media_type="application/json")
