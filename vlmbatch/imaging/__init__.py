"""From the bytes of an image file to the picture that a model gets; the only home of Pillow."""
