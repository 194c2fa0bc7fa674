"""What a simulation is given: the stages, the cluster, the autoscaling rules and the load."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from ingest.scaling.scaler import Goals


@dataclass(frozen=True, slots=True)
class StageModel:
    """A deployment that every image passes through."""

    name: str
    seconds_per_image: float
    """Seconds that one fully busy replica needs per image."""
    slots: float
    """Ongoing requests that make a replica fully busy."""
    cpus: float
    """CPUs of a node that one replica occupies."""
    min_replicas: int = 1


@dataclass(frozen=True, slots=True)
class ClusterModel:
    """The nodes that the stages run on, and how long nodes and replicas take to start."""

    node_cpus: float
    """CPUs that Ray offers on a node."""
    max_nodes: int
    min_nodes: int = 1
    node_start_s: float = 90.0
    """Seconds from the request for a node until Ray can place a replica on it."""
    node_idle_s: float = 300.0
    """Seconds until an unneeded node is removed (``idle_timeout_minutes`` of Ray's autoscaler)."""
    replica_start_s: float = 10.0
    fixed_cpus: tuple[float, ...] = ()
    """CPUs of actors that are not scaled, one entry for each node that holds some."""
    losses_per_node_hour: float = 0.0
    """Interruptions of spot nodes."""


@dataclass(frozen=True, slots=True)
class ScalingRules:
    """How the number of replicas is decided: the ``autoscaling`` section of AppConfig."""

    goals: Goals
    max_replicas: int
    upscale_delay_s: float = 30.0
    downscale_delay_s: float = 600.0
    look_back_s: float = 30.0
    read_period_s: float = 5.0


@dataclass(frozen=True, slots=True)
class OfferedLoad:
    """The messages of a simulated run, and the limits of its ingest actors."""

    backlog: float = 0.0
    """Messages on the queue at the beginning."""
    arrivals: Callable[[float], float] = lambda at_s: 0.0
    """Function that returns the messages per second that arrive at a time."""
    permits: float = 64.0
    """Jobs in flight over all ingest actors."""
    max_images_per_s: float = math.inf
    """Images per second that the ingest actors can dispatch."""
