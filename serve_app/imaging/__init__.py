"""Pure functions on arrays, from the bytes of an image to those of its cut-out."""
