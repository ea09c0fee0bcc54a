"""The endpoints of a run: found, proven, limited, watched, and shared by all images."""
