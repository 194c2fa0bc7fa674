"""Deployment of an image to a Kubernetes cluster, and the way back to the one before.

The package needs Python and kubectl only, so that a runner installs nothing for it.
"""
