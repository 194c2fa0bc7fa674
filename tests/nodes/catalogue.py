"""The scenarios by name, in an order in which few clusters are started."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.nodes import heads, scenarios
from tests.nodes.heads import REDIS_VARIABLES
from tests.nodes.rig import VISIBILITY_S
from tests.nodes.scenarios import Scenario


@dataclass(frozen=True)
class Entry:
    """A scenario, and the cluster that it needs.

    Attributes:
        title: What happens, for people.
        run: The scenario.
        endpoints: Number of HttpApi replicas.
        visibility_s: Visibility timeout of the messages, in seconds.
        variables: Variables of all nodes.
    """

    title: str
    run: Scenario
    endpoints: int = 2
    visibility_s: int = VISIBILITY_S
    variables: Mapping[str, str] = field(default_factory=dict)


SCENARIOS = {
    "stranger": Entry("machines without the token try to join", scenarios.stranger, endpoints=1),
    "elsewhere": Entry("images go to machines without HttpApi", scenarios.elsewhere, endpoints=1),
    "loss": Entry("a worker loses its power", scenarios.loss),
    # A message that the worker does not release comes after the scenario has failed.
    "notice": Entry("a worker gets SIGTERM", scenarios.notice, visibility_s=900),
    "partition": Entry("a worker is cut off for 30 s", scenarios.partition),
    "update": Entry("another revision is deployed", scenarios.update),
    "head_loss": Entry("the head loses its power", heads.head_loss),
    "head_kept": Entry(
        "the head loses its power, its state is in Redis",
        heads.head_kept,
        variables=REDIS_VARIABLES,
    ),
}
