"""Load with locust: its users, and the number of them over time."""
