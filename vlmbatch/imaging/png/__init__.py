"""The PNG format: chunks and what they say about colours."""
