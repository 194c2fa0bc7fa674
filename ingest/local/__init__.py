"""What runs on this machine alone: a local SQS and S3, a local Ray, and the application."""
