"""``foreedge plan``: the nodes, hours and dollars that a run takes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ingest.cli.options import JsonOption
from ingest.cli.terminal import open_terminal, print_json, print_line
from ingest.units import parse_count, parse_duration

ImageCountOption = Annotated[str, typer.Option(help="Number of images, e.g. 250k or 10M.")]
DeadlineOption = Annotated[
    str, typer.Option(help="Time in which the run must finish, e.g. 24h or 90min.")
]
InstanceOption = Annotated[str, typer.Option(help="EC2 instance type of the nodes.")]
SpotOption = Annotated[bool, typer.Option("--spot", help="Use spot nodes.")]
ModelOption = Annotated[str, typer.Option(help="Model to plan for; must be in the profile.")]
EngineOption = Annotated[str, typer.Option(help="Engine that runs the model, as segmenter.engine.")]
PrecisionOption = Annotated[str, typer.Option(help="Its precision, as segmenter.precision.")]
ProfileOption = Annotated[
    Path | None,
    typer.Option(
        help="JSON file of measured times: a profile, or what foreedge bench-node wrote. Default: "
        "the profile in the package."
    ),
]
PriceOption = Annotated[
    float | None,
    typer.Option(
        min=0.0001,
        max=1_000_000,
        help="US dollars per node-hour. Default: list prices.",
    ),
]
SpotFractionOption = Annotated[
    float | None,
    typer.Option(
        min=0.01,
        max=1,
        help="Spot price divided by the on-demand price.",
    ),
]
TimeFactorOption = Annotated[
    float | None,
    typer.Option(
        min=0.01,
        max=1_000,
        help="Seconds on the instance divided by those in the profile.",
    ),
]
NodeStartOption = Annotated[str, typer.Option(help="Time until a new node accepts replicas.")]
NodeCpusOption = Annotated[
    float | None,
    typer.Option(
        min=0.5,
        max=10_000,
        help="CPUs that Ray offers on a node: on Kubernetes those of a worker's pod. "
        "Default: the vCPUs of the instance.",
    ),
]
PlotOption = Annotated[Path | None, typer.Option(help="PNG file for a plot of the run.")]


def plan(
    images: ImageCountOption,
    deadline: DeadlineOption,
    instance: InstanceOption = "c8g.4xlarge",
    spot: SpotOption = False,
    model: ModelOption = "u2netp",
    engine: EngineOption = "onnxruntime",
    precision: PrecisionOption = "float32",
    profile: ProfileOption = None,
    price: PriceOption = None,
    spot_fraction: SpotFractionOption = None,
    time_factor: TimeFactorOption = None,
    node_start: NodeStartOption = "2min",
    node_cpus: NodeCpusOption = None,
    plot: PlotOption = None,
    as_json: JsonOption = False,
) -> None:
    """Estimate the nodes, hours and dollars of a run.

    The run is simulated with measured times per image and the real autoscaling policy.
    """
    # Lazy: what knows engines imports NumPy, which no other command does.
    from ingest.cli.plan_plot import check_plot_path, plot_plan
    from ingest.cli.plan_tables import Comparisons, plan_as_json, print_plan
    from ingest.scaling.capacity_plan import compare_engines, compare_families, make_plan
    from ingest.scaling.plan_inputs import find_instance, parse_pair, read_prices, read_profile
    from ingest.scaling.sizing import PlanRequest

    if plot is not None:
        check_plot_path(plot)
    prices = read_prices()
    request = PlanRequest(
        images=parse_count(images),
        deadline_s=parse_duration(deadline),
        instance=find_instance(instance, prices),
        model=model,
        pair=parse_pair(f"{engine} {precision}", "--engine, --precision"),
        spot=spot,
        price_per_hour=price,
        spot_fraction=spot_fraction,
        time_factor=time_factor,
        node_start_s=parse_duration(node_start),
        node_cpus=node_cpus,
    )
    measured = read_profile(profile)
    made = make_plan(request, measured, prices)
    if as_json:
        print_json(plan_as_json(made))
    else:
        others = Comparisons(
            compare_families(request, measured, prices), compare_engines(request, measured, prices)
        )
        print_plan(made, others, open_terminal())
    if plot is not None:
        plot_plan(made, plot)
        if not as_json:
            print_line(f"Plot  {plot}")
