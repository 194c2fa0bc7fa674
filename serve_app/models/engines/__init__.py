"""Engines: what runs a model's graph, in which precision, and whether that may serve."""
