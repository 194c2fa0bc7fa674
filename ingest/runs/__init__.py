"""Runs: sent, recorded, watched, reported, verified and redriven."""
