"""Models: what is known about each, where its weights are, and how it is run."""
