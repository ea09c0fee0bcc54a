"""The parts of an HTTP service: rate limits, and images from URLs."""
