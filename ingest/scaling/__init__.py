"""Autoscaling by the backlog of the queue, its simulation, and the capacity planner."""
