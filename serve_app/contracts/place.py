"""Places: what a job needs beyond its own image, and what may refuse to serve every job alike."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, NamedTuple

from serve_app.errors import ForeedgeError

PlaceKind = Literal["source", "output", "ledger", "model", "pipeline", "database"]


class Place(NamedTuple):
    """A bucket or a model, in its part in the work on a job.

    It is a tuple, whose hash needs no call of Python: a consumer looks up five for each message.
    """

    kind: PlaceKind
    """Part that it has in the work on a job."""
    name: str = ""
    """URL of the bucket or name of the model. Empty if it is not known which one it is."""

    @classmethod
    def of_bucket(cls, kind: PlaceKind, bucket: str) -> Place:
        """Return the place that a bucket is."""
        return cls(kind, f"s3://{bucket}")

    def __str__(self) -> str:
        """Return the name for people, such as ``output s3://bucket``."""
        return f"{self.kind} {self.name}".rstrip()


class Contacts:
    """The places that one attempt at a job asked, and how they behaved."""

    def __init__(self) -> None:
        self.answered: list[Place] = []
        """Places that have done what they were asked, or had an answer about this image."""
        self.refused: Place | None = None
        """Place that refused in a way that need not be the image's fault, or None."""

    @contextmanager
    def asking(self, place: Place, *, conclusive: bool = True) -> Iterator[None]:
        """Note how a place behaves in the ``with`` block.

        Args:
            place: Place that is asked.
            conclusive: Whether success shows that the place serves this kind of job. To look up an
                object, for one, does not show that objects can be written.
        """
        try:
            yield
        except ForeedgeError as error:
            if error.refusal:
                self.refused = place
            elif conclusive:
                self.answered.append(place)
            raise
        if conclusive:
            self.answered.append(place)
