"""The dashboard, the alerts and the configuration of Prometheus for an operator."""
