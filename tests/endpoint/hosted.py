"""Error replies of hosted servers: status and body, by server."""

import json

Replies = tuple[tuple[int, object], ...]

AZURE_FILTER = {
    "error": {
        "message": "The response was filtered due to the prompt triggering Azure OpenAI's content management "
        "policy. Please modify your prompt and retry.",
        "type": None,
        "param": "prompt",
        "code": "content_filter",
        "status": 400,
        "innererror": {
            "code": "ResponsibleAIPolicyViolation",
            "content_filter_result": {"violence": {"filtered": True, "severity": "medium"}},
        },
    }
}
NO_QUOTA = {
    "error": {
        "message": "You exceeded your current quota, please check your plan and billing details.",
        "type": "insufficient_quota",
        "param": None,
        "code": "insufficient_quota",
    }
}


WRONG_KEYS: Replies = (
    (401, {"error": {"message": "Incorrect API key provided: sk-abc***xyz.", "code": "invalid_api_key"}}),
    (401, {"error": {"message": "No auth credentials found", "code": 401}}),
    (401, {"error": {"message": "User not found.", "code": 401}}),
    (
        400,
        [
            {
                "error": {
                    "code": 400,
                    "message": "API key not valid. Please pass a valid API key.",
                    "status": "INVALID_ARGUMENT",
                    "details": [{"@type": "ErrorInfo", "reason": "API_KEY_INVALID"}],
                }
            }
        ],
    ),
)
"""OpenAI's, OpenRouter's two (no key, an unknown key), and the one of Gemini's OpenAI route."""
MODERATION: Replies = (
    (400, AZURE_FILTER),
    (
        400,
        {
            "error": {
                "message": "Your request was rejected as a result of our safety system.",
                "code": "moderation_blocked",
            }
        },
    ),
    (
        403,
        {
            "error": {
                "code": 403,
                "message": "a/model requires moderation on Provider.",
                "metadata": {"reasons": ["violence"], "flagged_input": "...", "provider_name": "Provider"},
            }
        },
    ),
    (
        400,
        {
            "error": {
                "code": 400,
                "message": "Provider returned error",
                "metadata": {
                    "raw": json.dumps({"error": {"message": "No.", "code": "content_policy_violation"}}),
                    "provider_name": "Provider",
                },
            }
        },
    ),
)
"""Azure's, OpenAI's, OpenRouter's own, and an error of a provider that OpenRouter forwards."""
NO_CREDITS: Replies = (
    (429, NO_QUOTA),
    (402, {"error": {"code": 402, "message": "Insufficient credits. Add more using the page of credits."}}),
    (402, {"error": {"code": 402, "message": "This request requires more credits, or fewer max_tokens."}}),
    (403, {"error": {"code": 403, "message": "Key limit exceeded (total limit)."}}),
)
"""OpenAI's and three of OpenRouter's."""
