"""Tests of the measurement of a node."""
