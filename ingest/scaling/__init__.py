"""How many replicas and nodes: the autoscaling policy, its simulation and the capacity plan."""
