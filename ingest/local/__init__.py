"""Everything on this machine: a local SQS and S3, Ray, and the application."""
