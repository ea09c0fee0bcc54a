"""The parts of an HTTP service: images from URLs."""
