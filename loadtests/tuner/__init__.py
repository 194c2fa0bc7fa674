"""The tuner: finds the fastest settings for a machine."""
