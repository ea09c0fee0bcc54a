"""The table that classifies replies: the first matching row decides. No row depends on an HTTP library.

Text comes before status, since servers send permanent errors as 500 and errors as 200; permanent errors
come first. The message is one sentence: `says`, then the server's own text, then `hint`.
"""

from vlmbatch.backends.classify.overflow import wants_too_many_tokens
from vlmbatch.backends.classify.row import Row
from vlmbatch.errors import (
    BadAnswerError,
    FatalBackendError,
    RejectedError,
    TransientError,
    UnavailableError,
)

_PICTURE = (200, 400, 415, 422, 500)
_TROUBLE = (200, 429, *range(500, 600))
_RUNNER = r"http://127\.0\.0\.1:\d{1,5}/"
_CUT_OFF = r"['\"]?: (EOF|(read|write|dial) tcp)"
_MODEL_HINT = "name another model with --model"
_WIRE_HINT = "check --backend and --base-url"
_KEY_HINT = (
    "set --api-key, or set OPENAI_API_KEY (OpenRouter: OPENROUTER_API_KEY, Ollama: OLLAMA_API_KEY) together "
    "with --base-url; for a fallback, write the variable of its key after its URL: @URL#VARIABLE"
)
_OPTION_HINT = "correct the option, or leave it out"


REPLIES: tuple[Row, ...] = (
    # the set-up: no image can succeed
    Row(
        "unknown model",
        r"model ['\"`][^'\"`\n]+['\"`] (not found|does not exist)|not found, try pulling|model_not_found"
        r"|not a valid model|invalid model name|model is required",
        FatalBackendError,
        "model_not_found",
        "the endpoint does not know this model",
        _MODEL_HINT,
    ),
    Row(
        "no vision",
        r"not a multimodal model|image input is not (supported|enabled)"
        r"|does not support (multimodal|image|vision)|no endpoints found that support image"
        # an Ollama model without its projector; hosted text models (DeepSeek, OpenAI)
        r"|missing data required for image input|unknown variant `image_url`"
        r"|image_url is only supported by certain models",
        FatalBackendError,
        "no_vision",
        "this model cannot see images",
        "choose a vision model with --model (a .gguf model also needs --mmproj)",
    ),
    Row(
        "key",
        # the last two are OpenRouter's texts for no key and for an unknown key
        r"(invalid|incorrect) api[ _]key|api[ _]key[ _](not valid|invalid)|invalid_api_key"
        r"|no auth credentials found|user not found",
        FatalBackendError,
        "auth",
        "the endpoint does not accept the key",
        _KEY_HINT,
    ),
    Row(
        "quota",
        # not "exceeded your current quota": Gemini also uses that for its limit per minute
        r"insufficient_quota|insufficient (credits|balance|funds)|credit balance is too low"
        r"|requires more credits|key limit exceeded",
        FatalBackendError,
        "quota",
        "the account has no credit left",
        "add credit, or choose another endpoint with --base-url",
    ),
    Row(
        "client certificate",
        r"no required SSL certificate|SSL certificate error",  # nginx, in a page with status 400
        FatalBackendError,
        "auth",
        "the endpoint requires a client certificate",
        "name one with --client-cert and --client-key",
        (400, 495, 496),
    ),
    Row(
        "host header",
        r"\A\s*\Z",
        FatalBackendError,
        "auth",
        "the endpoint refuses this client",
        "Ollama does so if it does not know the host name in --base-url: use its IP address there, "
        "or start Ollama with OLLAMA_HOST=0.0.0.0",
        (403,),
    ),
    Row(
        "encoder cache",
        r"encoder cache size",  # its hint names --limit-mm-per-prompt, too
        BadAnswerError,
        "context",
        "the image has more tokens than the endpoint accepts",
        "set a smaller --max-size, or start vLLM with a larger --max-num-batched-tokens",
        change="shrink",
    ),
    Row(
        "images per request",
        r"at most \d+ image|limit.mm.per.prompt|only supports one image",
        FatalBackendError,
        "bad_config",
        "the endpoint accepts fewer images per request than were sent",
        "raise the limit of the server (vLLM: --limit-mm-per-prompt)",
    ),
    Row(
        "max_tokens",
        r"max_tokens|output tokens|in the (completion|output)|for the completion",
        FatalBackendError,
        "bad_config",
        "--max-tokens is more than the model's whole context",
        "set a smaller --max-tokens",
        holds=wants_too_many_tokens,
    ),
    Row(
        "file URL",
        r"cannot load local files|must be a subpath of|file:// URLs are not allowed|file path is not allowed"
        r"|No such file or directory: '|file does not exist or cannot be opened",
        FatalBackendError,
        "bad_config",
        "the endpoint cannot read the image at this path of its disk",
        "leave out --file-urls, or start the server on a machine where the images have the "
        "same path, and name "
        "a folder above them with --allowed-local-media-path (vLLM) or --media-path / (llama-server)",
        (200, 400, 403, 422, 500),
    ),
    # this image or this request: retried with a smaller image, or refused
    Row(
        "context",
        r"exceed_context_size|context_length_exceeded|exceeds the available context|context length"
        r"|maximum model length|prompt( is)? too long|too long to fit|max_tokens' is too large"
        r"|request too large for|context (window|limit|size)|maximum (prompt|input) length|input is too long"
        r"|max_seq_len|tokens \+ .max_new_tokens|too many tokens: total|number of tokens allowed",
        BadAnswerError,
        "context",
        "image and prompt do not fit into the model's context",
        "set a smaller --max-size or a larger context",
        change="shrink",
    ),
    Row(
        "content filter",
        r"content_filter|ResponsibleAIPolicyViolation|content management policy|content_policy_violation"
        # OpenAI's own texts, and OpenRouter's moderation, which is a 403
        r"|moderation_blocked|our safety system|flagged as potentially violating|flagged_input"
        r"|(input|prompt) was flagged",
        RejectedError,
        "refused",
        "a content filter refuses this image or prompt",
    ),
    Row(
        "bomb",
        r"decompression bomb",
        RejectedError,
        "too_large",
        "the image has too many pixels for the endpoint",
    ),
    Row(
        "shape",
        r"aspect ratio|larger than factor",
        RejectedError,
        "bad_shape",
        "the model does not accept an image of this shape",
    ),
    Row(
        "undecodable",
        r"failed to load image|decode WebP image|failed to (decode|process) image|image: unknown format"
        r"|cannot identify image|image file is truncated|invalid image(?! input)|Non-base64 digit"
        r"|(audio|video) input is not supported|failed to apply \w*Processor",
        RejectedError,
        "rejected",
        "the endpoint cannot read this image",
        statuses=_PICTURE,
    ),
    # llama.cpp after a request with two images: other requests fail for a while
    Row(
        "chunk",
        r"Chunk not found",
        TransientError,
        "server_error",
        "the engine mixed up its images",
    ),
    # the set-up again, with patterns that could also match the failure of an image
    Row(
        "option",
        r"JSON schema|Grammar error|required for format|invalid format: |must be of type|response_format"
        r"|(invalid|missing unit in) duration|unknown unit"
        r"|does not support (thinking|tools|chat|generate|completion)|mm_processor_kwargs"
        r"|\b(max_tokens|max_completion_tokens|temperature|top_p|seed)\b.{0,40}\bmust be"
        r"|unsupported_(parameter|value)",
        FatalBackendError,
        "bad_config",
        "the endpoint does not accept one of the options",
        _OPTION_HINT,
    ),
    Row(
        "wire",
        r"illegal base64 data|invalid image input|image URLs are not currently supported|invalid url format"
        r"|ur[il] must be base64 encoded|cannot unmarshal"
        r"|\d validation errors?\b|unsupported content\[\]",
        FatalBackendError,
        "wrong_url",
        "the endpoint does not accept requests of this format",
        _WIRE_HINT,
        (200, 400, 422, 500),
    ),
    # the engine: it crashed over a request, or is down or busy
    Row(
        "crash",
        r"runner has unexpectedly stopped|EngineCore|EngineDead|unexpected EOF|error was encountered while "
        r"running the model|CUDA (error|out of memory)"
        # Ollama's connection to its runner (ollama 7640), not to its cloud
        rf"|{_RUNNER}completion{_CUT_OFF}",
        TransientError,
        "crash",
        "the engine crashed",
        statuses=_TROUBLE,
    ),
    Row(
        "loading",
        r"loading model|model is (still )?loading|no longer running|has terminated|during startup"
        r"|timed out waiting for .{1,40} to start|no slots available|unexpected server status"
        r"|background loop (has errored|is not running)"
        # memory that other programs use now may be free later (ollama 10920, 12025)
        rf"|requires more system memory|{_RUNNER}load{_CUT_OFF}",
        UnavailableError,
        "down",
        "the engine is loading or has died",
        statuses=_TROUBLE,
    ),
    Row(
        "busy",
        r"server busy|maximum pending requests|currently busy|rate.?limit|too many requests|overloaded",
        UnavailableError,
        "busy",
        "the endpoint is busy",
        statuses=_TROUBLE,
    ),
    # vLLM's /health while its engine is dead
    Row("silent 503", r"\A\s*\Z", UnavailableError, "down", "the endpoint is not ready", statuses=(503,)),
    # no text matched: the status decides
    Row(
        "redirect",
        "",
        FatalBackendError,
        "wrong_url",
        "the endpoint redirects",
        "set --base-url to the target address",
        range(300, 400),
    ),
    Row(
        "unauthorized",
        "",
        FatalBackendError,
        "auth",
        "the endpoint refuses this client",
        _KEY_HINT,
        (401, 403),
    ),
    Row(
        "proxy",
        "",
        FatalBackendError,
        "auth",
        "the proxy requires a user and a password",
        "write both into HTTP_PROXY or HTTPS_PROXY, for example http://user:password@proxy:3128",
        (407,),
    ),
    Row(
        "payment",
        "",
        FatalBackendError,
        "quota",
        "the endpoint requires payment",
        "add credit, or choose another endpoint with --base-url",
        (402,),
    ),
    Row(
        "wrong path",
        "",
        FatalBackendError,
        "wrong_url",
        "the endpoint does not know this address",
        "check --base-url and --backend (the base URL of an OpenAI API ends in /v1)",
        (404, 405),
    ),
    Row(
        "body too large",
        "",
        BadAnswerError,
        "body_too_large",
        "the image has more bytes than the endpoint accepts",
        "set a smaller --max-size or --quality, or a larger client_max_body_size at its proxy (nginx)",
        (413,),
        "shrink",
    ),
    Row("slow request", "", TransientError, "timeout", "the endpoint timed out", statuses=(408,)),
    Row(
        "passing",
        "",
        TransientError,
        "server_error",
        "the endpoint broke off the request",
        statuses=(409, 425, 499),
    ),
    Row("too many", "", UnavailableError, "busy", "the endpoint is busy", statuses=(429, 503, 529)),
    Row(
        "refused",
        "",
        RejectedError,
        "rejected",
        "the endpoint refuses this request",
        statuses=range(400, 500),
    ),
    Row(
        "unable", "", RejectedError, "rejected", "the endpoint does not support this request", statuses=(501,)
    ),
    Row(
        "gateway timeout",
        "",
        TransientError,
        "timeout",
        "a proxy in front of the endpoint timed out",
        "raise the timeout of the proxy (nginx: proxy_read_timeout)",
        (504, 524, 598, 599),  # 524 is Cloudflare's
    ),
    Row("server error", "", TransientError, "server_error", "the endpoint failed", statuses=range(500, 600)),
    Row(
        "nonsense",
        "",
        TransientError,
        "bad_response",
        "the endpoint's reply does not have the expected format",
    ),
)
"""Replies without an answer, in the order of matching; the last row matches every reply."""
