"""The SqsIngest deployment: receive messages, run their jobs, and acknowledge them."""
