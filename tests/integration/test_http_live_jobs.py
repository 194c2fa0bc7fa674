"""Jobs submitted to the served endpoint, and processed by the whole application."""

from __future__ import annotations

import time
import uuid
from typing import Any

from tests.support.images import book, jpeg
from tests.support.running_app import ANY_SIZE, App

BOOK = jpeg(book().image)


def job(app: App, key: str, **fields: Any) -> dict[str, Any]:
    output = {"bucket": app.bucket, "prefix": "posted/"}
    source = {"bucket": app.bucket, "key": key}
    return {"source": source, "output": output, "recipe": ANY_SIZE, **fields}


def wait_for_results(app: App, run_id: str, jobs: int) -> dict[str, Any]:
    """Return the counts of a run once it has a number of results."""
    for _ in range(300):
        answer = app.http.get(f"/v1/jobs/{run_id}")
        if answer.status_code == 200 and sum(answer.json()["counts"].values()) >= jobs:
            return dict(answer.json())
        time.sleep(0.3)
    raise AssertionError(answer.text)


def test_submitted_jobs_are_processed(app: App) -> None:
    entries = app.put({f"{number}.jpg": BOOK for number in range(12)})
    answer = app.http.post("/v1/jobs", json=[job(app, entry.key) for entry in entries])
    assert answer.status_code == 202, answer.text
    posted = answer.json()
    assert (posted["queued"], posted["refused"]) == (12, 0)
    assert len({item["job_id"] for item in posted["jobs"]}) == 12
    assert {item["run_id"] for item in posted["jobs"]} == {posted["run_id"]}
    counts = wait_for_results(app, posted["run_id"], 12)
    assert counts == {
        "run_id": posted["run_id"],
        "jobs": 12,
        "counts": {"done": 12, "skipped_existing": 0, "failed": 0},
        "remaining": 0,
        "codes": {},
        "complete": True,
    }
    assert len(list(app.store.list(app.bucket, f"posted/{entries[0].key.split('.')[0]}/"))) == 1


def test_a_job_keeps_the_ids_it_has(app: App) -> None:
    [entry] = app.put({"one.jpg": BOOK})
    run_id, job_id = f"mine-{uuid.uuid4().hex[:8]}", uuid.uuid4().hex
    body = job(app, entry.key, run_id=run_id, job_id=job_id, schema=1)
    posted = app.http.post("/v1/jobs", json=body).json()
    assert posted["jobs"] == [
        {
            "job_id": job_id,
            "run_id": run_id,
            "status": "queued",
            "code": None,
            "detail": None,
            "retry": None,
        }
    ]
    counts = wait_for_results(app, run_id, 1)
    # The number of jobs of such a run is unknown.
    assert (counts["jobs"], counts["remaining"]) == (None, None)
    # The same job, submitted again, is not processed again and still counts once.
    assert app.http.post("/v1/jobs", json=body).status_code == 202
    time.sleep(3)
    assert wait_for_results(app, run_id, 1)["counts"]["done"] == 1


def test_every_invalid_job_is_reported(app: App) -> None:
    [entry] = app.put({"one.jpg": BOOK})
    good = job(app, entry.key)
    bad: list[Any] = [
        job(app, entry.key, recipe="nonsense"),
        job(app, entry.key, recipe={"models": ["u2net"]}),
        job(app, entry.key, source={"bucket": "somebody-elses", "key": "k"}),
        job(app, entry.key, schema=2),
        job(app, entry.key, colour="red"),
        job(app, entry.key, run_id="not/a/name"),
        {"Records": []},
        {"source": "aws.s3", "detail-type": "Object Created"},
        "text",
        job(app, "k" * 30_000),
    ]
    answer = app.http.post("/v1/jobs", json=[bad[0], good, *bad[1:]])
    assert answer.status_code == 202
    first, queued, *others = answer.json()["jobs"]
    assert queued["status"] == "queued"
    assert [item["code"] for item in [first, *others]] == [
        "invalid_recipe",
        "unknown_model",
        "source_not_allowed",
        *["invalid_message"] * 7,
    ]
    assert all(item["detail"] and item["retry"] == "permanent" for item in [first, *others])
    assert wait_for_results(app, answer.json()["run_id"], 1)["jobs"] == 1
    alone = app.http.post("/v1/jobs", json=bad[0])
    assert (alone.status_code, alone.json()["code"]) == (400, "invalid_recipe")
    foreign = app.http.post("/v1/jobs", json=bad[2])
    assert (foreign.status_code, foreign.json()["code"]) == (403, "source_not_allowed")
    assert app.dead_letters() == []


def test_a_failed_job_is_counted_with_its_code(app: App) -> None:
    posted = app.http.post("/v1/jobs", json=job(app, "nowhere.jpg")).json()
    counts = wait_for_results(app, posted["run_id"], 1)
    assert counts["counts"]["failed"] == 1
    assert counts["codes"] == {"source_not_found": 1}
    assert len(app.dead_letters()) == 1


def test_an_unknown_run_is_not_found(app: App) -> None:
    answer = app.http.get("/v1/jobs/none")
    assert (answer.status_code, answer.json()["code"]) == (404, "source_not_found")
