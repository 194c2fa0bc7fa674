"""Comparison of Foreedge with other systems."""
