"""What the build of the container image runs."""
