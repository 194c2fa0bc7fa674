"""The jobs of messages that name their images."""

from __future__ import annotations

from ingest.messages.parse import parse_message
from serve_app.config import QueueConfig
from serve_app.contracts.job import Job


def parse_image_message(
    body: str, defaults: QueueConfig, message_id: str | None = None
) -> list[Job]:
    """Return the jobs of a message, none of which is a book collection's."""
    jobs = parse_message(body, defaults, message_id)
    images = [job for job in jobs if isinstance(job, Job)]
    assert len(images) == len(jobs)
    return images
