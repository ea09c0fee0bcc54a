"""From the samples of any picture to plain sRGB."""
