"""The wire format of the queue: messages are built and parsed here."""
