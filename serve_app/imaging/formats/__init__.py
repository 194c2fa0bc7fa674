"""Containers: the formats of image files, each split into its pixels and what is said of them."""
