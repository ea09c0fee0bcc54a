"""What the commands besides `run` find out; nothing here prints."""
