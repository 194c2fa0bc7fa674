"""The tuner: it finds the settings that are fastest on a machine."""
