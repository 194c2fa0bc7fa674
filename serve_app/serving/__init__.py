"""What a replica needs of Ray Serve and of libc."""
