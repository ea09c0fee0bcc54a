"""Reads the list of models of a server with the OpenAI API, in every shape that servers send."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from vlmbatch.backends.http.hints import MOST_MODELS, Hint, needs_model
from vlmbatch.backends.http.wire import only_model
from vlmbatch.backends.openai.replies import takes_images
from vlmbatch.backends.values import mapping, string
from vlmbatch.errors import BackendError

_LISTS = ("data", "models", "result", "results")
_NAMES = ("id", "name", "model")
_MORE = ("has_more", "next", "next_page", "next_page_token", "nextPageToken", "next_cursor")
_PREFIX = "models/"
"""Gemini lists `models/NAME`, and accepts both forms."""
_DEEPEST = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """The models that a server lists, by name; `error` says why it sent no list.

    `is_complete`: a model that is not listed does not exist. An empty list, one page of several, a list with
    a pattern such as `*`, and one with an entry without a name are not complete.
    """

    models: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    is_complete: bool = False
    error: BackendError | None = None
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, reply: Hint) -> Self:
        """The list in the reply to /models."""
        every = _entries(reply.value, 0)
        entries = every[:MOST_MODELS]
        named = [(_name(entry), entry) for entry in entries]
        models = {name: mapping(entry) for name, entry in named if name and "*" not in name}
        paged = len(every) > MOST_MODELS or any(reply.object.get(key) for key in _MORE)
        is_complete = bool(models) and len(models) >= len({name for name, _ in named}) and not paged
        return cls(models=models, is_complete=is_complete, error=reply.error, notes=reply.notes)

    def find(self, name: str) -> Mapping[str, Any] | None:
        """The entry with this name or alias; None if there is none."""
        entry = self.models.get(name)
        if entry is not None:
            return entry
        bare = name.removeprefix(_PREFIX)
        return next((each for each in self.models.values() if bare in _all_names(each)), None)

    def has_owner(self, owner: str) -> bool:
        """Whether a model is owned by this engine."""
        return any(entry.get("owned_by") == owner for entry in self.models.values())


def only_listed(listing: Listing, place: str, hint: str) -> str:
    """The only listed model that may see images, for a run without --model; `hint` is for the error.

    Raises:
        BackendError: there is no list or no such model.
        ConfigError: there are several.
    """
    if listing.error is not None:
        raise needs_model(listing.error)
    return only_model(
        (name for name, entry in listing.models.items() if takes_images(entry) is not False), place, hint
    )


def _entries(value: object, depth: int) -> list[object]:
    """The entries of a list, which may be wrapped in objects."""
    if isinstance(value, list):
        return value
    if not isinstance(value, dict) or depth > _DEEPEST:
        return []
    found = (_entries(value.get(key), depth + 1) for key in _LISTS)
    return next(filter(None, found), [])


def _name(entry: object) -> str:
    """The name of an entry, which may be a string; empty if it has none."""
    names = (string(mapping(entry).get(key)) for key in _NAMES)
    return string(entry) or next(filter(None, names), "")


def _all_names(entry: Mapping[str, Any]) -> Iterator[str]:
    """Every name that an entry reports for its model; `root` is the model behind vLLM's served name."""
    places = (entry, mapping(entry.get("meta")))
    values = [place.get(key) for place in places for key in (*_NAMES, "root", "aliases", "alias")]
    for value in values:
        for name in value if isinstance(value, list) else [value]:
            yield string(name).removeprefix(_PREFIX)
