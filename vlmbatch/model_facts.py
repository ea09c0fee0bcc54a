"""What an endpoint tells of one of its models."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """One model of one endpoint; what the endpoint does not tell is None.

    `bytes` is its size on disk; `parameters` and `quantization` are in the endpoint's own words (`8.3B`,
    `Q4_K_M`); `context` and `loaded_context` are in tokens, the second as it is loaded now; `on_gpu` is the
    part of what is loaded that lies in GPU memory, 0 to 1; `elsewhere` is the host that really answers,
    where the endpoint only passes questions on.
    """

    name: str
    backend: str
    endpoint: str
    bytes: int | None = None
    parameters: str | None = None
    quantization: str | None = None
    context: int | None = None
    sees: bool | None = None
    loaded: bool | None = None
    on_gpu: float | None = None
    loaded_context: int | None = None
    elsewhere: str | None = None
