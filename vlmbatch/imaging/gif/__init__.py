"""The GIF format: frames and the screen."""
