"""Load tests, benchmarks, the tuner and the planner: what is run beside a running application."""
