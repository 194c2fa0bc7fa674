"""The settings of one deployment's backlog policy, in the form in which Serve stores them."""

from __future__ import annotations

from pydantic import Field

from ingest.scaling.scaler import Goals
from serve_app.config import AwsConfig, NotNegative, Seconds, Section

_LATE_PERIODS = 4


class PolicySettings(Section):
    """Settings of a ``BacklogPolicy``. Serve keeps them as JSON until the controller starts it."""

    drain_s: Seconds
    """Time in which the waiting messages must be processed."""
    answer_s: Seconds
    """Time in which the requests that did not come from the queue must be answered."""
    away_after_s: Seconds
    """Age in seconds from which a reading of the backlog is ignored."""
    read_period_s: Seconds
    """Seconds between two readings of the backlog."""
    seconds_per_image: Seconds
    """Seconds that one fully busy replica needs per image, until the replicas have measured it."""
    slots: float = Field(gt=0)
    """Ongoing requests that make a replica fully busy."""
    permits: NotNegative = 0
    """Jobs that all ingest actors together have in flight at most."""
    queue_url: str | None = None
    """URL of the queue. None: the deployment follows its ongoing requests alone."""
    aws: AwsConfig = AwsConfig()

    @property
    def goals(self) -> Goals:
        """The goals of the ``Scaler``. A reading is late once four periods have passed."""
        late_after_s = _LATE_PERIODS * self.read_period_s
        return Goals(self.drain_s, self.answer_s, late_after_s, self.away_after_s)
