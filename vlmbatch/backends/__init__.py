"""The backends: each sends requests to one type of engine and reads its replies."""
