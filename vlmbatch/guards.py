"""The guards of a run, made from its options: how much is asked at once, and whether anybody is there."""

from collections.abc import Callable

from vlmbatch.config import RunConfig
from vlmbatch.config.groups import USUAL_SIDE
from vlmbatch.config.spec import AUTO
from vlmbatch.errors import ImageError
from vlmbatch.events import tell
from vlmbatch.images import PreparedImage
from vlmbatch.imaging.memory import Memory
from vlmbatch.imaging.prepare import prepare
from vlmbatch.imaging.sizing import Sizing, sizing_of
from vlmbatch.protocols import Observer
from vlmbatch.records import Endpoint


def sizing_for(config: RunConfig, endpoint: Endpoint, notify: Observer) -> Sizing:
    """Which sizes pictures are sent in to this model; what a person should know of that is told.

    Raises:
        ConfigError: --image-tokens, and nobody knows how this model counts them.
    """
    sizing = sizing_of(config.image, endpoint.model, endpoint.architecture)
    budget, least = config.image.image_tokens, sizing.least_tokens
    if config.image.max_size == AUTO and sizing.family is None:
        tell(
            notify,
            f"how {endpoint.model} counts the tokens of pictures is not known: --max-size auto is "
            f"{USUAL_SIDE} for it (docs/image-tokens.md)",
        )
    if budget is not None and least > budget:
        at_least = f"a photo costs {endpoint.model} at least {least} tokens"
        tell(notify, f"{at_least}, more than --image-tokens {budget}")
    return sizing


def preparer_of(
    config: RunConfig, sizing: Sizing, memory: Memory
) -> Callable[[bytes, int | None], PreparedImage]:
    """What prepares pictures as the options say, at most so large, in bounded memory; for many threads."""

    def prepared(data: bytes, longest: int | None) -> PreparedImage:
        fit = sizing if longest is None else sizing.at_most(longest)
        try:
            return prepare(data, config.image, memory.room, fit)
        except ImageError:  # decoders have many words for a lack of memory
            memory.prove()
            raise

    return prepared
