"""Least privilege, found out by running: every role does its work, and nothing else."""
