"""The parts of a question: its texts, its pictures, and whether it is a canary."""

import base64
import binascii
import contextlib
import hashlib
import io
from pathlib import Path
from urllib.parse import unquote

from PIL import Image, UnidentifiedImageError

from endpoint.messages import Picture, Received
from endpoint.wires import CANARY, UNDECODABLE, Refusal, error, nested


def has_messages(request: Received) -> bool:
    return bool(isinstance(request.body, dict) and request.body.get("messages"))


def texts(request: Received, *roles: str) -> list[str]:
    """All texts in the request's messages, or those of these roles."""
    found: list[str] = []
    for message in request.body["messages"]:
        if roles and message.get("role") not in roles:
            continue
        content = message.get("content")
        if isinstance(content, list):
            found += [str(part["text"]) for part in content if "text" in part]
        elif content:
            found.append(str(content))
    return found


def is_canary(request: Received) -> bool:
    """Whether the request is a canary, which only checks that pictures reach the model."""
    return any(text.startswith(CANARY) for text in texts(request, "user"))


def encoded_pictures(wire: str, body: object, media: Path | None) -> list[str]:
    """The base64 texts of a question's pictures, including files below `media`.

    Raises:
        Refusal: a picture has the other wire's form, or the body is no question.
    """
    messages = body.get("messages") if isinstance(body, dict) else None
    if not isinstance(messages, list):
        raise Refusal(error(wire, 400, "1 validation error:\n  messages: Field required"))
    if wire == "ollama":
        return [text for message in messages for text in message.get("images") or ()]
    found = []
    for message in messages:
        parts = message.get("content")
        urls = [p["image_url"]["url"] for p in parts if "image_url" in p] if isinstance(parts, list) else []
        for url in urls:
            if url.startswith("file://"):
                found.append(base64.b64encode(_file(url, media)).decode())
                continue
            start, comma, text = url.partition(";base64,")
            if not comma or not start.startswith("data:image/"):
                raise Refusal(error(wire, 400, "The URL must be either a HTTP, data or file URL."))
            found.append(text)
    return found


def _file(url: str, media: Path | None) -> bytes:
    """The bytes that vLLM reads for a file:// URL.

    Raises:
        Refusal: the server has no --allowed-local-media-path, or the file is outside it or missing.
    """
    path = Path(unquote(url.removeprefix("file://")))
    if media is None:
        words = "Cannot load local files without `--allowed-local-media-path`."
        raise Refusal(error("openai", 500, words))
    if media not in path.resolve().parents:
        words = f"The file path {path} must be a subpath of `--allowed-local-media-path {media}`."
        raise Refusal(error("openai", 400, words))
    try:
        return path.read_bytes()
    except FileNotFoundError as missing:
        raise Refusal(error("openai", 500, str(missing))) from missing


def pictures(request: Received, media: Path | None = None) -> tuple[Picture, ...]:
    """The pictures of a question, up to the first that cannot be read."""
    found = []
    with contextlib.suppress(Refusal):
        for text in encoded_pictures(request.wire, request.body, media):
            found.append(picture(request.wire, text))
    return tuple(found)


def picture(wire: str, text: str) -> Picture:
    """Decode one picture.

    Raises:
        Refusal: not base64, or not a picture.
    """
    try:
        data = base64.b64decode(text, validate=True)
    except binascii.Error:
        words = "illegal base64 data at input byte 4" if wire == "ollama" else "Non-base64 digit found"
        raise Refusal(error(wire, 400, words)) from None
    try:
        with Image.open(io.BytesIO(data)) as image:
            width, height = image.size
    except UnidentifiedImageError:
        if wire == "ollama":
            raise Refusal(nested(wire, 400, UNDECODABLE)) from None
        words = "Failed to load image: cannot identify image file <_io.BytesIO object>"
        raise Refusal(error(wire, 400, words)) from None
    return Picture(data=data, sha256=hashlib.sha256(data).hexdigest(), width=width, height=height)
