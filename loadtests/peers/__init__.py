"""Foreedge side by side with other systems."""
