"""The routes of the endpoint, one module for each group of paths."""
