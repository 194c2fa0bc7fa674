"""Load with locust: users and shapes."""
