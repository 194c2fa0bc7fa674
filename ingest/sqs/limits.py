"""Quotas of SQS that the code must keep to.

Source: "Amazon SQS message quotas" in the SQS developer guide,
https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html
"""

BATCH_ENTRIES = 10
"""Maximum number of entries in a batch call, and of messages in one receive."""

VISIBILITY_MAX_S = 43_200
"""Maximum visibility timeout in seconds: twelve hours. It is also the longest time for which a
delivery can be hidden in all, however often it is extended."""

RECEIVES_AT_ONCE = 32
"""Maximum number of receives that one consumer makes at the same time. It is not SQS's limit. At a
round trip of 30 ms 16 of them bring 5,300 messages/s only if each is followed by the next at once,
and the process has other work meanwhile."""

PAYLOAD_BYTES = 1_048_576
"""Maximum size in bytes of a message with its attributes, and of all messages of a batch.

Until 4 August 2025 it was 256 KiB
(https://aws.amazon.com/about-aws/whats-new/2025/08/amazon-sqs-max-payload-size-1mib/), and some
servers that speak SQS's protocol still enforce that. Batches of jobs stay below it too: a message
of a run has some 500 bytes, and a job posted over HTTP at most 24 KiB.
"""

MESSAGE_ATTRIBUTES = 10
"""Maximum number of attributes of a message, apart from those of the system."""
