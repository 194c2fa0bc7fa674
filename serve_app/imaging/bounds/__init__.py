"""Bounded scans of image files, one module for each container, before a decoder reads them.

Decoders read headers segment by segment, some of them in Python, and a file of some megabytes can
hold millions of segments. A scan skips from segment to segment by their lengths, stops at a limit,
and leaves out the metadata that would be costly to read.
"""
