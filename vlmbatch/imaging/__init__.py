"""Turns the bytes of an image file into the picture that is sent; the only package that imports Pillow."""
