"""Bounds of the time that a decoder takes for a file, before it gets the file.

``serve_app.imaging.formats`` bounds what is read of metadata. Here are the costs of pixels: scans,
strips, tiles, runs and blocks, of which a file of some megabytes can hold millions.
"""
