"""Walk folders of images and ask a vision model about each one."""
