"""Every call to SQS."""
