"""The parts of an HTTP service: API keys, rate limits, and images from URLs."""
