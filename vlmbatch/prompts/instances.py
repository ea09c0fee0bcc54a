"""Makes instances of a pydantic class from answers. This module does not import pydantic."""

import json
from typing import Any

from vlmbatch.config.answer_class import AnswerClass
from vlmbatch.errors import AnswerClassError

LONGEST_REASON = 240


def instance_of(answer_class: type[AnswerClass], data: Any) -> AnswerClass:
    """The instance of this class with this JSON value; runs the validators of the class.

    The class reads JSON text, since a strict class takes dates and enumerations only from JSON.

    Raises:
        ValueError: the class refuses the value; the message says where and why, without the value itself.
        AnswerClassError: the class raised another exception.
    """
    try:
        return answer_class.model_validate_json(json.dumps(data))
    except Exception as error:
        refusal = _refusal(error)
        if refusal is None:
            raise AnswerClassError(error) from error
    raise ValueError(refusal)  # pydantic's exception would hold the value


def _refusal(error: Exception) -> str | None:
    """The place and the reason in a ValidationError of pydantic; None for any other exception."""
    if not (isinstance(error, ValueError) and type(error).__module__.startswith("pydantic")):
        return None
    first: dict[str, Any] = error.errors()[0]  # type: ignore[attr-defined]  # a ValidationError has it
    steps = (f".{step}" if isinstance(step, str) else f"[{step}]" for step in first["loc"])
    told = " ".join(f"${''.join(steps)}: {first['msg']}".split())
    shown = "".join(c if c.isprintable() else "?" for c in told)
    return shown if len(shown) <= LONGEST_REASON else f"{shown[:LONGEST_REASON]}..."
