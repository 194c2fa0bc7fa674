"""Nodes that come and go with the backlog, by Ray's own autoscaler."""
