"""Classifies the exceptions of LiteLLM by the names of their classes, without importing them."""

import re
from collections.abc import Callable, Mapping

from vlmbatch.backends.classify import classify_error, retry_after
from vlmbatch.backends.classify.body import clean
from vlmbatch.backends.classify.overflow import overflow_in
from vlmbatch.backends.classify.row import Row
from vlmbatch.errors import (
    BackendError,
    BadAnswerError,
    FatalBackendError,
    RejectedError,
    TransientError,
    UnreachableError,
)

_KEY_HINT = (
    "set the key of its provider, such as OPENAI_API_KEY, or --api-key; "
    "for a fallback, write the variable of its key after its URL: @URL#VARIABLE"
)
_MODEL_HINT = "name another model with --model, as provider/model"

_FATAL, _BAD, _NO, _PASSING = FatalBackendError, BadAnswerError, RejectedError, TransientError
_GUARDRAIL = "a guardrail refuses this image or prompt"
_PAY = "add credit, or choose another provider"
_ROWS = (
    Row("AuthenticationError", "", _FATAL, "auth", "the provider refuses this client", _KEY_HINT),
    Row("PermissionDeniedError", "", _FATAL, "auth", "the provider refuses this client", _KEY_HINT),
    Row("NotFoundError", "", _FATAL, "model_not_found", "the provider does not know this model", _MODEL_HINT),
    Row(
        "ModelNotMappedError", "", _FATAL, "model_not_found", "LiteLLM does not know this model", _MODEL_HINT
    ),
    Row("LiteLLMUnknownProvider", "", _FATAL, "bad_config", "LiteLLM knows no such provider", _MODEL_HINT),
    Row(
        "EndpointNotSupportedByModelError",
        "",
        _FATAL,
        "bad_config",
        "this model does not support chat",
        _MODEL_HINT,
    ),
    Row(
        "UnsupportedEndpointError", "", _FATAL, "wrong_url", "the provider does not support chat", _MODEL_HINT
    ),
    Row(
        "UnsupportedParamsError",
        "",
        _FATAL,
        "bad_config",
        "the provider does not accept this option",
        "leave it out",
    ),
    Row("PaymentRequiredError", "", _FATAL, "quota", "the account has no credit left", _PAY),
    Row("BudgetExceededError", "", _FATAL, "quota", "LiteLLM's budget is used up", _PAY),
    Row(
        "ContextWindowExceededError",
        "",
        _BAD,
        "context",
        "image and prompt do not fit into the model's context",
        "set a smaller --max-size",
        change="shrink",
    ),
    Row("JSONSchemaValidationError", "", _BAD, "bad_schema", "the answer does not fit the schema"),
    Row("ContentPolicyViolationError", "", _NO, "refused", "a content filter refuses this image or prompt"),
    Row("ImageFetchError", "", _NO, "rejected", "the provider cannot read this image"),
    Row("RejectedRequestError", "", _NO, "refused", _GUARDRAIL),
    Row("GuardrailRaisedException", "", _NO, "refused", _GUARDRAIL),
    Row("BlockedPiiEntityError", "", _NO, "refused", _GUARDRAIL),
    Row("SensitiveDataRouteException", "", _NO, "refused", _GUARDRAIL),
    Row("Timeout", "", _PASSING, "timeout", "no answer in time"),
    Row("APIConnectionError", "", _PASSING, "connection", "the connection to the provider was lost"),
    Row(
        "APIResponseValidationError",
        "",
        _PASSING,
        "bad_response",
        "the reply does not have the expected format",
    ),
    Row(
        "ModifyResponseException",
        "",
        _PASSING,
        "bad_response",
        "a guardrail of LiteLLM replaced the provider's reply",
    ),
    Row("MidStreamFallbackError", "", _PASSING, "server_error", "the provider broke off the answer"),
    Row("VectorStoreSearchError", "", _PASSING, "server_error", "the provider failed"),
    Row("MockException", "", _PASSING, "server_error", "the provider failed"),
    Row("OpenAIError", "", _PASSING, "server_error", "the provider failed"),
)
CLASSES: Mapping[str, Row] = {row.name: row for row in _ROWS}
"""Exceptions whose class says more than their text; the nearest class in the hierarchy counts."""
BY_TEXT = frozenset(
    (
        *("BadRequestError", "MalformedRequestFieldError", "InvalidRequestError", "UnprocessableEntityError"),
        *("RateLimitError", "ServiceUnavailableError", "BadGatewayError", "InternalServerError", "APIError"),
    )
)
"""Exceptions with many meanings: status and text decide, as for every reply of a server."""

_PREFIX = re.compile(r"^(?:litellm\.)?(?:\w+(?:Error|Exception|Timeout)?: )*(?:\w+Exception - )?")
_UNREACHABLE = re.compile(
    r"connection error|cannot connect|connect call failed|name or service", re.IGNORECASE
)


def to_backend_error(error: BaseException, place: str, masked: Callable[[str], str]) -> BackendError:
    """The BackendError for an exception of LiteLLM; `masked` hides the secrets in its text."""
    names = [kind.__name__ for kind in type(error).__mro__]
    text = masked(_PREFIX.sub("", str(error)) or names[0])
    status = getattr(error, "status_code", None)
    status = status if isinstance(status, int) and status >= 400 else 500
    headers = _headers(error)
    name = next((name for name in names if name in CLASSES or name in BY_TEXT), None)
    if _UNREACHABLE.search(text) and name in ("InternalServerError", "APIConnectionError", "APIError"):
        return UnreachableError(f"no connection to {place}: {clean(text)}; check the network, or --base-url")
    if name is not None and name in CLASSES:
        row = CLASSES[name]
        hint = f"; {row.hint}" if row.hint else ""
        ours = row.error(
            f"{row.says}: {clean(text)}{hint}",
            kind=row.kind,
            retry_after=retry_after(headers),
            change=row.change,
        )
        ours.status, ours.told = getattr(error, "status_code", None), clean(text)
        ours.overflow = overflow_in(clean(text)) if row.kind == "context" else None
        return ours
    return classify_error(status, _body(error) or text, headers, masked)


def _body(error: BaseException) -> str:
    """The raw reply behind an exception; empty if the exception has none."""
    try:
        return str(getattr(getattr(error, "response", None), "text", "") or "")
    except RuntimeError:  # httpx: the reply was never read
        return ""


def _headers(error: BaseException) -> dict[str, str]:
    """The headers of the reply behind an exception; empty if the exception has none."""
    headers = getattr(error, "litellm_response_headers", None) or getattr(
        getattr(error, "response", None), "headers", None
    )
    try:
        return {str(name): str(value) for name, value in dict(headers or {}).items()}
    except (TypeError, ValueError):
        return {}
