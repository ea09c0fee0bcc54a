"""The work of the commands doctor, models and pull, and of --dry-run; nothing here prints."""
