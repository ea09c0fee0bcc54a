"""The backend for Ollama's own API."""
