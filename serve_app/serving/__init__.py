"""Code around Ray Serve and the C library that several deployments need."""
