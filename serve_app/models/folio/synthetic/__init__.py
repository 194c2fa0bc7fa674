"""Synthetic photographs of books and objects, with their true masks."""
