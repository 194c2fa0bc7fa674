"""The order in which images go: requests first, without starving the queue's images."""
