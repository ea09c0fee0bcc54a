"""Reads the body of a request: JSON or a multipart form, with the fields in the URL."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from vlmbatch import strict_json
from vlmbatch.observers.format import counted
from vlmbatch.service.call import Call
from vlmbatch.service.problems import Problem
from vlmbatch.service.uploads import checked, decoded, safe_name

F = TypeVar("F", bound=BaseModel)
FILE = ("file", "files", "image", "images")
"""The form fields that may hold images."""
LARGEST_FIELD = 1_000_000
"""The most bytes of a form field that is not a file."""
MOST_FIELDS = 30
FLAWS: Mapping[str, str] = {
    "missing": "is missing",
    "extra_forbidden": "is not a field of this request",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a number",
    "string_type": "must be a text",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "list_type": "must be a list",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "string_too_short": "is empty",
    "string_too_long": "has more than {max_length:,} characters",
    "too_short": "is empty",
    "too_long": "has more than {max_length} items",
    "literal_error": "must be {expected}",
    "union_tag_invalid": "must have one of these types: {expected_tags}",
    "union_tag_not_found": "has no {discriminator}",
}
"""What is wrong with a field, by pydantic's name of the flaw."""
MOST_VALUES = 50_000
"""About the most lists, objects and items in a JSON body; reading them stops all other requests meanwhile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """An image from a form: the content of its file, and the name without folders."""

    name: str
    data: bytes = field(repr=False)


async def json_body(request: Request, kind: type[F]) -> F:
    """The fields of a JSON body.

    Raises:
        Problem: it is not JSON, or a field is wrong.
    """
    if _media_type(request) not in ("application/json", ""):
        raise Problem(
            "unsupported_media_type", "the body must be JSON; send the header Content-Type: application/json"
        )
    value = json_object(await request.body(), "the body", '{"prompt": "...", "image_base64": "..."}')
    return validated(kind, value, strict=True)


def json_object(content: bytes, place: str, example: str) -> dict[str, Any]:
    """The object in this JSON; `place` and `example` are for messages.

    Raises:
        Problem: it is not JSON, no object, or too long.
    """
    if sum(map(content.count, b"[{,")) > MOST_VALUES:
        raise Problem("bad_request", f"{place} has more than {MOST_VALUES:,} values; send fewer")
    try:
        value = _value(content)
    except ValueError as error:
        raise Problem("bad_request", f"{place} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise Problem("bad_request", f"{place} is JSON, but not an object; write {example}")
    return value


async def form_body(request: Request, kind: type[F], *, most_files: int = 1) -> tuple[F, list[Upload]]:
    """The fields of a multipart form and of the URL, and the images.

    Raises:
        Problem: it is not a form, a field is wrong, there is no image, or there are too many.
    """
    _check_form(request)
    async with _form(request, most_files) as form:
        fields = validated(kind, _texts(request, form))
        files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
        if not files:
            raise Problem("bad_option", "file is missing; send the image in the form field file")
        call = Call.of(request.scope)
        return fields, [await _upload(file, call, number) for number, file in enumerate(files, 1)]


@asynccontextmanager
async def form_file(request: Request, kind: type[F]) -> AsyncIterator[tuple[F, UploadFile]]:
    """The fields of a multipart form, and its file, which is on the disk if it is large.

    Raises:
        Problem: it is not a form, a field is wrong, or there is no file.
    """
    _check_form(request)
    async with _form(request, 1) as form:
        fields = validated(kind, _texts(request, form))
        file = next((value for value in form.values() if isinstance(value, UploadFile)), None)
        if file is None:
            raise Problem("bad_option", "file is missing; send it in the form field file")
        yield fields, file


def _check_form(request: Request) -> None:
    if not is_form(request):
        raise Problem(
            "unsupported_media_type",
            "the body must be a form with a file; write: curl -F file=@photo.jpg ...",
        )


@asynccontextmanager
async def _form(request: Request, most_files: int) -> AsyncIterator[FormData]:
    """The fields of the form; raises a Problem if it cannot be read."""
    reading = request.form(max_files=most_files, max_fields=MOST_FIELDS, max_part_size=LARGEST_FIELD)
    try:
        form = await reading
    except Problem:
        raise
    except HTTPException as error:
        advice = f"at most {counted(most_files, 'file')} and {MOST_FIELDS} fields are allowed"
        raise Problem("bad_request", f"the form cannot be read ({error.detail}); {advice}") from error
    try:
        yield form
    finally:
        await form.close()


def url_fields(request: Request, kind: type[F]) -> F:
    """The fields in the URL.

    Raises:
        Problem: a field is wrong.
    """
    return validated(kind, _texts(request, FormData()))


def decoded_upload(
    request: Request, text: str, place: str = "image_base64", name: str | None = None
) -> Upload:
    """The image in a field of a JSON body; without a name, that of the request.

    Raises:
        Problem: it is not base64, or not an image.
    """
    call = Call.of(request.scope)
    data = decoded(text, place)
    call.image_bytes.append(len(data))
    return Upload(name=name or call.request_id, data=data)


def is_form(request: Request) -> bool:
    """Whether the body is a form."""
    return _media_type(request) == "multipart/form-data"


def validated(kind: type[F], value: Mapping[str, Any], *, strict: bool = False) -> F:
    """The checked fields; raises a Problem that names each wrong field. `strict`: a text is no number."""
    try:
        return kind.model_validate(value, strict=strict)
    except ValidationError as error:
        flaws = error.errors(include_url=False, include_input=False)[:5]
        told = "; ".join(map(_told, flaws))
        if any(flaw["type"] == "extra_forbidden" and len(flaw["loc"]) == 1 for flaw in flaws):
            names = (each.alias or name for name, each in kind.model_fields.items())
            told = f"{told}; the fields are: {', '.join(names)}"
        raise Problem("bad_option", told) from None


def _value(body: bytes) -> Any:
    """The value of a JSON body; raises a ValueError if it is not strict JSON.

    pydantic's parser reads a photograph in base64 in 0.4 ms; json.loads would block the event loop for 7 ms.
    """
    value = from_json(body, allow_inf_nan=False)
    strict_json.check_numbers(value)
    return value


def _told(flaw: Mapping[str, Any]) -> str:
    place = ".".join(str(step) for step in flaw["loc"] if not str(step).startswith("<"))
    if flaw["type"] in FLAWS:
        return f"{place[:100]} {FLAWS[flaw['type']].format_map(flaw.get('ctx', {}))}"
    message = str(flaw["msg"]).removeprefix("Value error, ")
    return f"{place}: {message[:1].lower()}{message[1:]}"


def _texts(request: Request, form: FormData) -> dict[str, str]:
    """The texts of the URL and of the form; an empty one counts as missing."""
    pairs: Sequence[tuple[str, Any]] = (*request.query_params.multi_items(), *form.multi_items())
    texts: dict[str, str] = {}
    for name, value in pairs:
        if isinstance(value, UploadFile):
            if name not in FILE:
                raise Problem(
                    "bad_option", f"{name[:50]} is not a field for files; send the image in the field file"
                )
        elif name in FILE:
            raise Problem(
                "bad_option", f"{name} is a text and not a file; write: curl -F {name}=@photo.jpg ..."
            )
        elif name in texts:
            raise Problem("bad_option", f"{name[:50]} is given more than once; write it once")
        else:
            texts[name] = value
    return {name: value for name, value in texts.items() if value}


async def _upload(file: UploadFile, call: Call, number: int) -> Upload:
    data = checked(await file.read(), f"the file {number}" if number > 1 else "the file")
    call.image_bytes.append(len(data))
    return Upload(name=safe_name(file.filename, call.request_id), data=data)


def _media_type(request: Request) -> str:
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Problem(
            "unsupported_media_type", "the body is compressed; send it without the header Content-Encoding"
        )
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()
