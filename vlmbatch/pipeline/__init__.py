"""The story of a run: from an image reference to a written result."""
