"""The main job: images of every kind, through the queue and over HTTP."""

from __future__ import annotations

import io
import time

import httpx
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from serve_app.models.gate import intersection_over_union
from tests.support.images import HEIGHT, WIDTH, book, defects, jpeg, traits
from tests.support.running_app import ANY_SIZE, App


def alpha_of(data: bytes) -> npt.NDArray[np.uint8]:
    image = Image.open(io.BytesIO(data))
    assert image.mode == "RGBA"
    return np.asarray(image)[..., 3]


def test_photographs_through_the_queue(app: App) -> None:
    photographs = {f"{seed}.jpg": book(seed) for seed in range(20, 32)}
    run = app.run({name: jpeg(taken.image) for name, taken in photographs.items()})
    assert {outcome.status for outcome in run.outcomes.values()} == {"done"}
    assert len({outcome.output_key for outcome in run.outcomes.values()}) == len(photographs)
    scores = [
        intersection_over_union(alpha_of(run.results[name]), p.mask)
        for name, p in photographs.items()
    ]
    assert np.median(scores) > 0.9
    for name, outcome in run.outcomes.items():
        assert outcome.cutout is not None
        assert (outcome.cutout.width, outcome.cutout.height) == (WIDTH, HEIGHT)
        assert outcome.output_bytes == len(run.results[name])
        stages = "fetch decode resize segment mask compose encode publish"
        assert list(outcome.cutout.stages_ms) == stages.split()
    assert app.dead_letters() == []


def test_more_than_a_message_of_grpc_has_room_for_by_default(app: App) -> None:
    """Both the image and its result are larger than 4 MiB (docs/decisions/0012)."""
    pixels = book(1, width=3200, height=2400).image.astype(np.int16)
    pixels += np.random.default_rng(0).integers(-20, 21, pixels.shape, dtype=np.int16)
    file = io.BytesIO()
    noisy = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    noisy.save(file, "PNG", compress_level=1)
    answer = app.post(file.getvalue())
    assert answer.status_code == 200, answer.text
    assert min(len(file.getvalue()), len(answer.content)) > 4 * 1024 * 1024
    assert alpha_of(answer.content).shape == (2400, 3200)


def test_a_run_that_is_sent_again_makes_nothing_anew(app: App) -> None:
    entries = app.put({f"{seed}.jpg": jpeg(book(seed).image) for seed in (40, 41)})
    first, second = app.finish(app.send(entries)), app.finish(app.send(entries))
    assert {outcome.status for outcome in first.outcomes.values()} == {"done"}
    assert {outcome.status for outcome in second.outcomes.values()} == {"skipped_existing"}
    assert first.results == second.results


def test_the_queue_and_http_give_the_same_bytes(app: App) -> None:
    data = jpeg(book().image)
    run = app.run({"book.jpg": data}, {"background": "#336699", "format": "webp", **ANY_SIZE})
    answer = app.post(data, background="#336699", format="webp")
    assert answer.headers["content-type"] == "image/webp"
    assert answer.content == run.results["book.jpg"]


@pytest.mark.timeout(600)
def test_the_catalog_preset_over_both_ways(app: App) -> None:
    data = jpeg(book().image)
    fields = {"matting": "closed_form", "background": "auto", "thumbnail": {}, **ANY_SIZE}
    run = app.run({"book.jpg": data}, fields)
    outcome = run.outcomes["book.jpg"]
    assert outcome.cutout is not None, outcome
    assert "matting" in outcome.cutout.stages_ms
    answer = app.post(data, recipe="catalog")
    assert answer.content == run.results["book.jpg"]
    assert "matting;dur=" in answer.headers["server-timing"]
    assert Image.open(io.BytesIO(answer.content)).mode == "RGB"
    assert outcome.output_bucket is not None
    assert outcome.thumbnail_key is not None
    small = app.store.get(outcome.output_bucket, outcome.thumbnail_key)
    assert Image.open(io.BytesIO(small)).size == (300, 225)


def test_every_trait_over_both_ways(app: App) -> None:
    truth = book().mask
    run = app.run({trait.name: trait.data for trait in traits()})
    reference = alpha_of(app.post(jpeg(book().image)).content)
    # How good the model is on this image is not the question here.
    least = intersection_over_union(reference, truth) - 0.02
    for trait in traits():
        assert run.outcomes[trait.name].status == "done", run.outcomes[trait.name]
        over_http = app.post(trait.data)
        assert over_http.status_code == 200, (trait.name, over_http.text)
        assert over_http.content == run.results[trait.name], trait.name
        alpha = alpha_of(over_http.content)
        assert alpha.shape == (HEIGHT, WIDTH), trait.name
        expected = truth if trait.alpha is None else np.minimum(truth, trait.alpha)
        assert intersection_over_union(alpha, expected) > (0.6 if trait.grey else least), trait.name
        if trait.alpha is not None:
            assert not alpha[trait.alpha == 0].any()
        if trait.name.startswith("exif-"):
            assert intersection_over_union(alpha, reference) > 0.98, trait.name


def test_every_defect_over_both_ways_and_the_next_image_succeeds(app: App) -> None:
    sound = jpeg(book().image)
    photographs = {defect.name: defect.data for defect in defects()} | {"sound": sound}
    run = app.run(photographs)
    for defect in defects():
        outcome = run.outcomes[defect.name]
        assert (outcome.status, outcome.code) == ("failed", defect.code), defect.name
        answer = app.post(defect.data)
        problem = answer.json()
        assert answer.headers["content-type"] == "application/problem+json"
        assert (answer.status_code, problem["code"]) == (defect.status, defect.code), defect.name
        assert problem["detail"] == outcome.message or defect.code == "empty_image"
        assert problem["retry"] == "permanent"
        assert app.post(sound).status_code == 200
    assert run.outcomes["sound"].status == "done"
    reasons = [letter["MessageAttributes"] for letter in app.dead_letters()]
    codes = sorted(reason["foreedge.code"]["StringValue"] for reason in reasons)
    assert codes == sorted(defect.code for defect in defects())


def test_an_image_over_the_limit_of_bytes(app: App) -> None:
    limit = app.config.limits.max_bytes
    data = jpeg(book().image) + bytes(limit)
    run = app.run({"large.jpg": data, "sound.jpg": jpeg(book().image)})
    assert run.outcomes["large.jpg"].code == "image_too_large"
    assert run.outcomes["sound.jpg"].status == "done"
    assert app.post(data).json()["code"] == "image_too_large"
    chunked = app.http.post("/v1/cutout", content=iter([data[:limit], data[limit:]]))
    assert (chunked.status_code, chunked.json()["code"]) == (413, "image_too_large")
    app.dead_letters()


def test_a_job_that_names_what_is_not_there(app: App) -> None:
    [entry] = app.put({"gone.jpg": jpeg(book().image)})
    missing = entry._replace(key=entry.key + ".missing")
    foreign = entry._replace(bucket="somebody-elses")
    changed = entry._replace(etag="0" * 32, job_id="changed")
    found = {}
    for each in (missing, foreign, changed):
        run = app.finish(app.send([each]))
        [outcome] = run.outcomes.values()
        found[each] = outcome.code
    assert list(found.values()) == ["source_not_found", "source_not_allowed", "source_changed"]
    assert len(app.dead_letters()) == 3


# --- HTTP ---


def test_a_form_with_options(app: App) -> None:
    answer = app.http.post(
        "/v1/cutout",
        files={"photograph": ("book.jpg", jpeg(book().image), "image/jpeg")},
        data={"mask_only": "true", "crop_to_subject": "true"},
    )
    assert answer.status_code == 200, answer.text
    mask = Image.open(io.BytesIO(answer.content))
    left, top, right, bottom = map(int, answer.headers["foreedge-crop"].split(","))
    assert (mask.mode, mask.size) == ("L", (right - left, bottom - top))
    subject = [int(edge) for edge in answer.headers["foreedge-subject"].split(",")]
    # The crop keeps soft edges, which the subject's bounding box leaves out.
    assert left <= subject[0] < subject[2] <= right
    assert top <= subject[1] < subject[3] <= bottom
    assert answer.headers["foreedge-model"] == "folio"
    assert "segment;dur=" in answer.headers["server-timing"]


def test_accept_chooses_the_format(app: App) -> None:
    headers = {"accept": "image/jpeg"}
    answer = app.http.post("/v1/cutout", content=jpeg(book().image), headers=headers)
    assert answer.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(answer.content)).mode == "RGB"


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        ({"recipe": "nonsense"}, "invalid_recipe", "choose from cutout, catalog, mask"),
        ({"background": "blurple"}, "invalid_recipe", "background"),
        ({"colour": "red"}, "invalid_recipe", "colour"),
        ({"matting": "open_form"}, "invalid_recipe", "matting"),
        ({"quality": "101"}, "invalid_recipe", "quality"),
        ({"models": "u2net"}, "unknown_model", "folio"),
    ],
)
def test_options_that_cannot_be(app: App, options: dict[str, str], code: str, says: str) -> None:
    answer = app.post(jpeg(book().image), **options)
    assert (answer.status_code, answer.json()["code"]) == (400, code)
    assert says in answer.json()["detail"]


def test_a_form_without_a_file(app: App) -> None:
    answer = app.http.post("/v1/cutout", files={"note": (None, "no file")})
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_format")


def test_other_paths_and_methods(app: App) -> None:
    assert app.http.get("/nothing").json()["code"] == "not_found"
    answer = app.http.get("/v1/cutout")
    assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")


def test_health_readiness_and_models(app: App) -> None:
    assert app.http.get("/healthz").json()["status"] == "ok"
    give_up_at = time.monotonic() + 30
    # The consumer begins after the models are loaded and the ledger is checked.
    while not (ready := app.http.get("/readyz").json())["ingest"]["healthy"]:
        assert ready["ingest"]["queue_url"] == app.queue.url, "its replica must have answered"
        assert time.monotonic() < give_up_at, ready
        time.sleep(0.2)
    assert ready["status"] == "ready"
    assert ready["ingest"]["queue_url"] == app.queue.url
    [model] = app.http.get("/v1/models").json()["models"]
    assert (model["name"], model["size_px"], len(model["sha256"])) == ("folio", 320, 64)


def test_a_client_that_hangs_up_costs_nothing(app: App) -> None:
    data = jpeg(book(width=1600, height=1200).image)
    for _ in range(5):
        with pytest.raises(httpx.ReadTimeout):
            app.http.post("/v1/cutout", content=data, timeout=0.01)
    assert app.post(data).status_code == 200
