"""A loopback server for tests. It speaks the wires of Ollama and OpenAI, and fails on demand."""

from endpoint.server import Endpoint, Model, Picture, Received

__all__ = ["Endpoint", "Model", "Picture", "Received"]
