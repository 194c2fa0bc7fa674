"""Models: what is known of each, where its weights are, and how it is run."""
