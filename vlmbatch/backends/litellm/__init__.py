"""Cloud providers through the LiteLLM library (an extra)."""
