"""Fixtures, fakes and runners that several kinds of tests use."""
