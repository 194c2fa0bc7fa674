"""Foreedge ingest: from messages on a queue to jobs, results and reports."""
