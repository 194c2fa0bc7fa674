"""Tests of engines, precisions and the choice between them."""
