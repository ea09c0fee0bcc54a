"""The backend for hosted models of many providers over LiteLLM; the only module that imports it."""

import asyncio
import importlib.util
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any, Self

from vlmbatch.backends.adaptation import Adaptation, OptionalParameters
from vlmbatch.backends.classify import attach_cost, check_answer
from vlmbatch.backends.classify.refusals import Omissions
from vlmbatch.backends.classify.thoughts import without_thinking
from vlmbatch.backends.classify.token_limits import TokenLimits
from vlmbatch.backends.http.auth import Credentials, Headers, names_secret
from vlmbatch.backends.http.wire import is_loopback
from vlmbatch.backends.keys import WITHOUT_KEY
from vlmbatch.backends.litellm.deployments import Deployment
from vlmbatch.backends.litellm.errors import to_backend_error
from vlmbatch.backends.logprobs import logprobs_in, logprobs_parameters
from vlmbatch.backends.openai.replies import answer_text, response_format, thoughts, used_in
from vlmbatch.backends.values import count, mapping, mappings, number, string
from vlmbatch.config.spec import redact
from vlmbatch.errors import FatalBackendError, MissingDependencyError
from vlmbatch.finish_reasons import ENDED, UNKNOWN, reason_in, word_of
from vlmbatch.protocols import Tell, quiet
from vlmbatch.records import Completion, Endpoint, Generation, Load, Request

EXAMPLES = "for example gpt-4o, anthropic/claude-sonnet-4-5 or gemini/gemini-2.5-flash"
OPTIONAL: Mapping[str, tuple[str, ...]] = {"temperature": ("temperature",), "seed": ("seed",)}
"""The parameters that vlmbatch sends by itself and that a provider may refuse, with their names there."""
KEY_VARIABLES = ("_API_KEY", "_TOKEN", "_SECRET_ACCESS_KEY")
NO_KEY = "none"
"""The placeholder for a key: the client libraries require one."""


def require_installed() -> None:
    """Raise MissingDependencyError if the package is not installed; does not import it."""
    if importlib.util.find_spec("litellm") is None:
        raise MissingDependencyError(
            'LiteLLM is not installed; install it with: pip install "vlmbatch[litellm]"'
        )


def quiet_library() -> ModuleType:
    """Import LiteLLM and turn off its downloads, its telemetry and its output."""
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else it fetches prices when it is imported
    os.environ["LITELLM_MODE"] = "PRODUCTION"  # else it reads a .env file
    os.environ.setdefault("LITELLM_LOG", "CRITICAL")
    import litellm

    # it leaves such a coroutine if a request is cancelled before it starts
    warnings.filterwarnings("ignore", r"coroutine '.*acompletion.*' was never awaited", RuntimeWarning)
    # a module that it loads at the first request makes pydantic warn about its types
    warnings.filterwarnings("ignore", r"Items? .* on TypedDict class", UserWarning)
    litellm.telemetry = False
    litellm.suppress_debug_info = True
    litellm.drop_params = True  # some providers do not support a seed
    for name in ("LiteLLM", "LiteLLM Router", "LiteLLM Proxy"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return litellm


def _exempt_loopback_from_proxies() -> None:
    """Add loopback to NO_PROXY, so that no proxy of the environment is used for this machine."""
    for name in ("NO_PROXY", "no_proxy"):
        named = [part for part in os.environ.get(name, "").split(",") if part]
        os.environ[name] = ",".join(dict.fromkeys((*named, "localhost", "127.0.0.1", "::1")))


class LiteLLMBackend:
    """One model of one provider, through LiteLLM without its retries."""

    name = "litellm"
    concurrency = 8

    def __init__(
        self,
        deployment: Deployment,
        *,
        timeout_s: float,
        headers: Headers = (),
        needs_price: bool = False,
        checks_vision: bool = True,
        given: frozenset[str] = frozenset(),
    ) -> None:
        """`headers` are sent with each request. `given` are the parameters of the user, which are always
        sent, too.

        With `needs_price` a model without a known price is an error; with `checks_vision` a model is an error
        if LiteLLM reports that it has no vision.

        Raises:
            ConfigError: the key contains characters that a header cannot carry.
        """
        self._deployment = deployment
        self._timeout_s = timeout_s
        self._headers = dict(headers)
        self._needs_price = needs_price
        self._checks_vision = checks_vision
        self._credentials = Credentials.of(
            deployment.url or "http://localhost",
            deployment.key,
            headers,
            more_keys=_more_keys(deployment.extra),
        )
        self._adaptation = Adaptation(OptionalParameters(names=OPTIONAL, omissions=Omissions(given=given)))
        self._library: ModuleType | None = None
        self._provider = deployment.model.partition("/")[0] if "/" in deployment.model else ""

    @property
    def place(self) -> str:
        """The URL or the provider, without secrets; see protocols.Backend."""
        return redact(self._deployment.url) if self._deployment.url else self._provider or "its provider"

    def masked(self, text: str) -> str:
        """The text without secrets, also those from the environment; see protocols.Backend."""
        return self._credentials.without_keys(text)

    async def __aenter__(self) -> Self:
        self._library = await asyncio.to_thread(quiet_library)  # takes two seconds
        if self._is_local:
            _exempt_loopback_from_proxies()
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._library is not None:
            await self._library.close_litellm_async_clients()

    async def preflight(self, tell: Tell = quiet) -> Endpoint:
        """Check the model with LiteLLM's own tables; no request is sent. See protocols.Backend."""
        library, model = self._loaded(), self._deployment.model
        try:
            _, self._provider, _, _ = library.get_llm_provider(model, api_base=self._deployment.url)
        except library.exceptions.BadRequestError as error:
            raise FatalBackendError(
                f"LiteLLM knows no provider for {model!r}; write provider/model, {EXAMPLES}",
                kind="bad_config",
            ) from error
        self._require_key(library, model)
        info = self._info(library, model)
        if self._needs_price and not info.get("input_cost_per_token"):
            raise FatalBackendError(
                f"LiteLLM has no price for {model}, which --max-cost needs; add --prices FILE",
                kind="bad_config",
            )
        if info and not info.get("supports_vision") and self._checks_vision:
            raise FatalBackendError(
                f"LiteLLM reports that {model} cannot see images; name a vision model with --model, "
                f"{EXAMPLES}, or skip this check with --no-canary",
                kind="no_vision",
            )
        return Endpoint(
            backend=self.name,
            url=self.place,
            model=self._deployment.name,
            context=count(info.get("max_input_tokens")) or None,
            notes=self._notes(),
        )

    async def probe(self) -> None:
        """Do nothing: providers have no cheap health check; see protocols.Backend."""

    async def listens(self) -> bool:
        """Return True: LiteLLM does not show its connections; see protocols.Backend."""
        return True

    async def load(self) -> Load | None:
        """Return None: providers do not report their queue; see protocols.Backend."""
        return None

    async def warm_up(self, generation: Generation, deadline_s: float) -> float:
        """Do nothing: providers keep their models loaded; see protocols.Backend."""
        return 0.0

    async def unload(self) -> None:
        """Do nothing; see protocols.Backend."""

    async def complete(self, request: Request) -> Completion:
        """Send one request; see protocols.Backend."""
        attempts = self._adaptation.attempts(request.generation)
        while not attempts.are_over:
            with attempts:
                reply = await self._send(request)
        content = reply.model_dump()
        choice = next(iter(mappings(content.get("choices"))), {})
        message = mapping(choice.get("message"))
        split = without_thinking(answer_text(message), request)
        text, thinking = split.answer, thoughts(message) + split.thinking
        used, cost = used_in(content), _cost(reply)
        owes_cost = self._needs_price and cost is None
        tokens = mapping(choice.get("logprobs")).get("content")
        logprobs, missing = logprobs_in(tokens, request.generation.logprobs, request.generation.max_tokens)
        reason = _finish_reason(choice)
        with attach_cost(used.tokens, cost, owes_cost=owes_cost):
            flaws = check_answer(
                text,
                reason,
                thinking=thinking,
                refusal=string(message.get("refusal")),
                accept=request.accept,
                limits=TokenLimits(usage=used.tokens, max_tokens=request.generation.max_tokens),
            )
        return Completion(
            text=text,
            model=string(content.get("model")) or self._deployment.model,
            finish_reason=reason or "stop",
            usage=used.tokens,
            thinking=len(thinking),
            warnings=(
                *split.warnings,
                *flaws,
                *used.warnings,
                *missing,
                *self._adaptation.form.warnings(request.generation),
            ),
            cost=cost,
            owes_cost=owes_cost,
            logprobs=logprobs,
        )

    async def _send(self, request: Request) -> Any:
        library = self._loaded()
        deadline_s = request.deadline_s or self._timeout_s
        try:
            async with asyncio.timeout(deadline_s + 1):  # LiteLLM's own timeout fails for a trickling reply
                return await library.acompletion(**self._arguments(request, deadline_s))
        except TimeoutError as error:
            raise to_backend_error(
                library.exceptions.Timeout("no answer", "", ""), self.place, str
            ) from error
        except Exception as error:  # noqa: BLE001  # the errors of the providers' clients have no common base
            ours = to_backend_error(error, self.place, self._credentials.masked)
            raise ours from None  # the chain contains the request with its key

    def _arguments(self, request: Request, deadline_s: float) -> dict[str, Any]:
        generation = request.generation
        content: list[dict[str, Any]] = [{"type": "text", "text": request.prompt}]
        for picture in request.images:
            url = f"data:{picture.media_type};base64,{picture.data.decode('ascii')}"
            content.append({"type": "image_url", "image_url": {"url": url}})
        system = [{"role": "system", "content": request.system}] if request.system else []
        sampling = {"temperature": generation.temperature, "seed": generation.seed}
        left_out = self._adaptation.form.refused - generation.given
        optional = {
            **{name: v for name, v in sampling.items() if name not in left_out},
            "api_base": self._deployment.url,
            "api_key": self._deployment.key or self._placeholder(),
            "extra_headers": self._headers or None,
        }
        return {
            **self._deployment.extra,
            "model": self._deployment.model,
            "messages": [*system, {"role": "user", "content": content}],
            "max_tokens": generation.max_tokens,
            "timeout": deadline_s,
            "num_retries": 0,  # only the run's own loop retries
            "max_retries": 0,
            **logprobs_parameters(generation.logprobs),
            **response_format(generation.schema),
            **{name: value for name, value in optional.items() if value is not None},
        }

    def _placeholder(self) -> str | None:
        """A value for a client library that needs a key, or would take one from the environment."""
        needs_one = self._is_local and self._provider in ("openai", "custom_openai")
        return NO_KEY if needs_one or self._deployment.key == WITHOUT_KEY else None

    @property
    def _is_local(self) -> bool:
        return self._deployment.url is not None and is_loopback(self._deployment.url)

    def _require_key(self, library: ModuleType, model: str) -> None:
        """Raise FatalBackendError if no key for the provider is set."""
        if self._deployment.key is not None or self._is_local or self._headers:
            return
        missing = library.validate_environment(model).get("missing_keys") or []
        if missing:
            raise FatalBackendError(
                f"{self._provider} needs a key; set {' or '.join(map(str, missing))}, or --api-key",
                kind="auth",
            )

    @staticmethod
    def _info(library: ModuleType, model: str) -> Mapping[str, Any]:
        """LiteLLM's facts about the model; empty for an unknown model."""
        try:
            return dict(library.get_model_info(model))
        except Exception:  # noqa: BLE001  # it raises a bare Exception, or lately a class of its own
            return {}

    def _notes(self) -> tuple[str, ...]:
        if self._is_local:
            return ()
        return (f"{self._deployment.model} runs at {self.place}: images leave this machine",)

    def _loaded(self) -> ModuleType:
        if self._library is None:
            raise RuntimeError("used outside of its async with")
        return self._library


def _finish_reason(choice: Mapping[str, Any]) -> str:
    """The finish reason; the provider's own one if LiteLLM replaced it by `stop`, as it does for failures."""
    reason = reason_in(choice.get("finish_reason"))
    native = reason_in(mapping(choice.get("provider_specific_fields")).get("native_finish_reason"))
    return native if reason == "stop" and word_of(native) not in (*ENDED, *UNKNOWN) else reason


def _more_keys(extra: Mapping[str, Any]) -> Iterator[str]:
    """The keys from the environment, which LiteLLM reads by itself, and those in further parameters."""
    yield from (value for name, value in os.environ.items() if name.endswith(KEY_VARIABLES))
    yield from (value for name, value in extra.items() if isinstance(value, str) and names_secret(name))


def _cost(reply: Any) -> float | None:
    """US dollars by LiteLLM's own list of prices; None if the model is not listed."""
    cost = getattr(reply, "_hidden_params", {}).get("response_cost")
    known = number(cost)
    return known if known is not None and known > 0 else None
