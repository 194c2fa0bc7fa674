"""Foreedge on an emulated arm64 CPU: real wheels and binaries, without an arm64 machine."""
