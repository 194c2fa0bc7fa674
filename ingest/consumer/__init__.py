"""The SqsIngest deployment: receives messages, has their jobs done, acknowledges them."""
