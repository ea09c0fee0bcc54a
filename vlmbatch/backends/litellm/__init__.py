"""The backend for cloud providers, through the LiteLLM library (an extra)."""
