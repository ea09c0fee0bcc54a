"""The JPEG format: structure, damage, and files that are sent as they are."""
