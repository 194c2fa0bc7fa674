"""Messages carry every key that S3 can have, in characters that SQS accepts."""

from __future__ import annotations

import re

from hypothesis import example, given, settings
from hypothesis import strategies as st

from ingest.messages.build import message_body
from ingest.sources.base import Entry
from serve_app.config import QueueConfig
from tests.support.image_messages import parse_image_message

# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html
SQS_CHARACTERS = re.compile("[\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]*")
QUEUE = QueueConfig(url="https://sqs/q")


@settings(max_examples=60)
@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=250))
@example("\x00\x1b\x7f\ufffe\uffff\\uffff\u2028")
def test_a_message_carries_every_key_through_sqs(key: str) -> None:
    entry = Entry("b", key, job_id="j")
    body = message_body("r", {"bucket": "o", "prefix": "p/"}, "cutout", entry)
    assert SQS_CHARACTERS.fullmatch(body)
    [job] = parse_image_message(body, QUEUE)
    assert job.source.key == key
