"""The fields of OpenAI's chat completions, as far as a question about images has them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from vlmbatch.service.fields import LARGEST_SEED, LARGEST_TOKENS, TEXT, Text
from vlmbatch.service.models import Asked
from vlmbatch.service.problems import Problem

MOST_PICTURES = 16
MOST_MESSAGES = 100
MOST_PARTS = 100
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "top_p": (1,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logprobs": (False,),
    "parallel_tool_calls": (True, False),
    "modalities": (["text"],),
    "store": (False,),
    "stop": ([],),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "logit_bias": ({},),
    "service_tier": ("auto", "default"),
}
"""Values that change nothing, which many clients send; any other value of these fields is refused."""
WITHOUT_EFFECT = frozenset(("user", "metadata", "safety_identifier", "prompt_cache_key"))
"""Fields that describe the caller, and that vlmbatch neither keeps nor sends on."""
ANY_JSON = '{"type":"object"}'


class _Loose(BaseModel):
    model_config = ConfigDict(extra="allow", hide_input_in_errors=True)


class TextPart(_Loose):
    """A text in a message."""

    type: Literal["text"]
    text: Text


class ImageUrl(_Loose):
    """Where an image is: a data URL, or a URL of a host that the service may fetch from."""

    url: str = Field(min_length=1)


class ImagePart(_Loose):
    """An image in a message."""

    type: Literal["image_url"]
    image_url: ImageUrl


Part = Annotated[TextPart | ImagePart, Field(discriminator="type")]


def _kind_of_content(value: object) -> str:
    return TEXT if isinstance(value, str) else "<parts>"


Content = Annotated[
    Annotated[Text, Tag(TEXT)] | Annotated[list[Part], Field(max_length=MOST_PARTS), Tag("<parts>")],
    Discriminator(_kind_of_content),
]


class Message(_Loose):
    """A message of the conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Content | None = None


class JsonSchema(_Loose):
    """The schema of a structured answer."""

    json_schema: dict[str, Any] = Field(alias="schema")


class ResponseFormat(_Loose):
    """The form of the answer."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class StreamOptions(_Loose):
    """Options of a streamed answer."""

    include_usage: bool = False


class ChatBody(_Loose):
    """A chat completion request with images."""

    model: str | None = Field(None, max_length=200)
    messages: list[Message] = Field(min_length=1, max_length=MOST_MESSAGES)
    max_tokens: int | None = Field(None, ge=1, le=LARGEST_TOKENS)
    max_completion_tokens: int | None = Field(None, ge=1, le=LARGEST_TOKENS)
    temperature: float | None = Field(None, ge=0, le=2, allow_inf_nan=False)
    seed: int | None = Field(None, ge=-LARGEST_SEED, le=LARGEST_SEED)
    response_format: ResponseFormat | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    @property
    def wants_usage(self) -> bool:
        """Whether a streamed answer ends with the usage."""
        return self.stream_options is not None and self.stream_options.include_usage

    def refuse_unsupported(self) -> None:
        """Raise a Problem for a field that would change the answer, and that vlmbatch does not have."""
        for name, value in (self.model_extra or {}).items():
            if name in WITHOUT_EFFECT or value is None or value in NEUTRAL.get(name, ()):
                continue
            raise Problem("bad_option", f"{name[:50]} is not supported; leave it out")

    def asked(self, said: "Conversation") -> Asked:
        """The question with its options."""
        return Asked(
            prompt=said.prompt,
            system=said.system,
            schema=self._schema(),
            max_tokens=self.max_completion_tokens or self.max_tokens,
            temperature=self.temperature,
            seed=self.seed,
        )

    def _schema(self) -> str | None:
        if self.response_format is None or self.response_format.type == "text":
            return None
        if self.response_format.type == "json_object":
            return ANY_JSON
        if self.response_format.json_schema is None:
            raise Problem(
                "bad_option", "response_format.json_schema is missing; add it with its name and schema"
            )
        return json.dumps(self.response_format.json_schema.json_schema)


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """The messages as a question: one system message, one prompt, and the images of the user's message."""

    prompt: str | None
    system: str | None
    urls: tuple[str, ...]

    @classmethod
    def of(cls, body: ChatBody) -> Self:
        """The question in these messages.

        Raises:
            Problem: there are earlier turns, no image, or too many.
        """
        systems = [message for message in body.messages if message.role in ("system", "developer")]
        others = [message for message in body.messages if message.role not in ("system", "developer")]
        if len(others) != 1 or others[0].role != "user":
            raise Problem(
                "bad_option",
                "messages must have a single message with the role user; remove the other messages",
            )
        if len(systems) > 1:
            raise Problem("bad_option", "messages has more than one system message; join them")
        texts, urls = _parts(others[0])
        if not urls:
            raise Problem(
                "bad_option", "messages has no image; add a part of type image_url to the user's message"
            )
        if len(urls) > MOST_PICTURES:
            raise Problem(
                "bad_option",
                f"messages has {len(urls)} images, and at most {MOST_PICTURES} are allowed; send fewer",
            )
        system_texts = [text for message in systems for text in _parts(message)[0]]
        return cls(prompt=_joined(texts), system=_joined(system_texts), urls=tuple(urls))


def _parts(message: Message) -> tuple[list[str], list[str]]:
    """The texts and the URLs of images in a message."""
    if message.content is None or isinstance(message.content, str):
        return [message.content or ""], []
    texts = [part.text for part in message.content if isinstance(part, TextPart)]
    urls = [part.image_url.url for part in message.content if isinstance(part, ImagePart)]
    return texts, urls


def _joined(texts: Sequence[str]) -> str | None:
    text = "\n".join(texts)
    return text if text.strip() else None


class ModelCard(_Loose):
    """A model that requests may name."""

    id: str
    object: Literal["model"]


class ModelList(_Loose):
    """The models that requests may name."""

    object: Literal["list"]
    data: list[ModelCard]


class ChatReply(_Loose):
    """A chat completion."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[dict[str, Any]]
    usage: dict[str, int]
    vlmbatch: dict[str, Any]


class OpenAIError(_Loose):
    """Why a request has no answer; `code` is the kind of the failure."""

    message: str
    type: str
    param: None
    code: str


class OpenAIFailed(_Loose):
    """The reply to a request without an answer."""

    error: OpenAIError
    request_id: str
