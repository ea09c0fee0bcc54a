"""The model behind the test endpoint: its view of the pictures, its answers and its token counts."""

import io

from PIL import Image

from endpoint.messages import Received
from endpoint.questions import texts

PICTURE_TOKENS = 64
PATCH = 28
CONSTANT_TOKENS = 40
PLACEHOLDER_TOKENS = 5
CHARACTERS_A_TOKEN = 4
COLOURS = {
    "orange": (255, 140, 0),
    "purple": (128, 0, 128),
    "red": (255, 0, 0),
    "green": (0, 128, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "black": (0, 0, 0),
    "grey": (128, 128, 128),
    "white": (255, 255, 255),
}


def count_tokens(request: Received, counts: str, blind: bool) -> int | None:
    """The prompt tokens that the reply reports, None for no report.

    `counts` is "real" (a token a word, 64 a picture), "patches" (a token a word and for each 28x28 pixels),
    "words" (pictures take no token, as in models that process them outside their context), "text" (their
    base64 text is counted as text), "constant" (the same for all questions) or "none".

    Raises:
        ValueError: `counts` is none of these.
    """
    if counts not in ("real", "patches", "words", "text", "constant", "none"):
        raise ValueError(f"no counts {counts!r}")
    if counts == "none":
        return None
    if counts == "constant":
        return CONSTANT_TOKENS
    words = sum(len(text.split()) for text in texts(request))
    if counts == "words":
        return words
    if counts == "patches":
        return words + sum(-(-p.width // PATCH) * -(-p.height // PATCH) for p in request.pictures)
    if counts == "text":
        return words + sum(len(picture.data) * 4 // 3 for picture in request.pictures) // CHARACTERS_A_TOKEN
    if blind:
        # Ollama's runners before 0.25 put a literal [img-0] into the prompt of a model that cannot see
        return words + (PLACEHOLDER_TOKENS * len(request.pictures) if request.wire == "ollama" else 0)
    return words + PICTURE_TOKENS * len(request.pictures)


def describe(request: Received) -> str:
    """The default answer: a description of the pictures that arrived."""
    return "; ".join(map(str, request.pictures)) or "no picture"


def colour(request: Received) -> str:
    """The answer to a canary: the name of its picture's colour."""
    if not request.pictures:
        return "no picture"
    with Image.open(io.BytesIO(request.pictures[0].data)) as image:
        mean = image.convert("RGB").resize((1, 1), Image.Resampling.BOX).tobytes()
    return min(COLOURS, key=lambda name: sum((a - b) ** 2 for a, b in zip(COLOURS[name], mean, strict=True)))
