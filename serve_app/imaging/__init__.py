"""Pure functions on arrays, from the bytes of a photograph to those of its cut-out."""
