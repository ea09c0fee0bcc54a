"""llama.cpp inside this process (an extra), and the demo model that comes with it."""
