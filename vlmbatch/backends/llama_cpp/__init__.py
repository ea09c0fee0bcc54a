"""The backend with llama.cpp inside this process (an extra), and its demonstration model."""
