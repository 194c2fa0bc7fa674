"""The wire format of the queue: build messages, and parse them."""
