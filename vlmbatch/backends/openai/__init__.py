"""Servers that speak the OpenAI API: vLLM, llama-server, LM Studio, SGLang, OpenRouter, OpenAI."""
