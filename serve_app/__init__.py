"""Foreedge: what turns a photograph into a cut-out, and the Serve application around it."""
