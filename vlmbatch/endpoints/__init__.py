"""The endpoints of a session: found, proven, limited, watched, and shared by all images."""
