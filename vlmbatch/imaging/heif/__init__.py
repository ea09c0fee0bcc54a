"""The boxes of AVIF and HEIC."""
