"""Files that put Foreedge on machines: Serve files, and the container image."""
