"""The TIFF format: structure, corrections of Pillow, and a second decoder."""
