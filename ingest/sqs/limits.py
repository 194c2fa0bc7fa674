"""Quotas of SQS that the code must keep to.

Source: "Amazon SQS message quotas" in the SQS developer guide,
https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html
"""

BATCH_ENTRIES = 10
"""Maximum number of entries in a batch call, and of messages in one receive."""

VISIBILITY_MAX_S = 43_200
"""Maximum visibility timeout in seconds: twelve hours."""

PAYLOAD_BYTES = 262_144
"""Maximum size in bytes that every queue accepts, of one message with its attributes and of all
messages of a batch together: 256 KiB.

SQS itself has allowed 1 MiB for both since 4 August 2025. A single queue may still allow less: its
``MaximumMessageSize`` stays at 256 KiB if it was set before, and servers that speak SQS's protocol
follow late. Nothing is lost by the smaller limit, since ten messages of a run have some 5 KB.
"""
