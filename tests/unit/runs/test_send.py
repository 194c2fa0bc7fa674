"""Which photographs a run is made of, and that each of its messages is sent."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from ingest.cli.arguments import OutputPlaces, collect, load_file, override, settings
from ingest.messages.build import message_body, new_run_id
from ingest.messages.parse import parse
from ingest.runs import send as bulk
from ingest.runs.manifest import read_manifest
from ingest.sources.base import Entry
from ingest.sources.folder import FileUpload, upload
from ingest.sources.manifest import ManifestSource
from ingest.sqs import sender as sending
from serve_app.config import AppConfig, LedgerConfig, QueueConfig
from serve_app.contracts.job import Output
from serve_app.errors import InvalidConfig, InvalidRecipe, QueueUnavailable, StorageUnavailable
from serve_app.storage.local import LocalStore

LEDGER = LedgerConfig(bucket="b")
QUEUE = QueueConfig(url="http://localhost/queue")
OUTPUT = Output(bucket="b")


class FakeSqs:
    """Takes messages; ``answer`` may refuse some of a call's entries."""

    def __init__(self, answer: Callable[[int, list[Any]], list[Any]] = lambda _, __: []) -> None:
        self.bodies: list[str] = []
        self.calls = 0
        self._answer = answer
        self._lock = threading.Lock()

    def get_queue_attributes(self, **_: Any) -> dict[str, Any]:
        return {}

    def send_message_batch(self, QueueUrl: str, Entries: list[Any]) -> dict[str, Any]:  # noqa: N803
        with self._lock:
            failed = self._answer(self.calls, Entries)
            self.calls += 1
            refused = {item["Id"] for item in failed}
            self.bodies += [item["MessageBody"] for item in Entries if item["Id"] not in refused]
            return {"Failed": failed}


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def put(store: LocalStore, *keys: str, bucket: str = "b") -> None:
    for key in keys:
        store.put(bucket, key, key.encode(), "image/jpeg")


def plan_of(entries: list[Entry], run_id: str = "r1", description: str = "d") -> bulk.RunPlan:
    return bulk.plan_run(
        entries, run_id=run_id, description=description, output=OUTPUT, recipe="cutout"
    )


def keys_of(entries: Iterable[Entry]) -> list[str]:
    return [entry.key for entry in entries]


def manifest(path: Path, **options: bool) -> list[Entry]:
    return list(ManifestSource(path, **options).entries())


def test_a_prefix_holds_images_and_nothing_of_ours(store: LocalStore) -> None:
    put(store, "a.JPG", "sub/b.webp", "notes.txt", "cutouts/a/1.png", "_foreedge/runs/r/x.png")

    found = collect("s3://b/", OutputPlaces(), "r1", store, LEDGER, QUEUE)

    assert keys_of(found.photographs.entries()) == ["a.JPG", "sub/b.webp"]
    assert found.photographs.skipped == 1
    assert all(entry.etag for entry in found.photographs.entries())
    assert found.output == OUTPUT


def test_another_bucket_s_results_folder_is_a_source(store: LocalStore) -> None:
    put(store, "cutouts/a.png", bucket="other")

    found = collect(
        "s3://other/", OutputPlaces(output="s3://b/cutouts"), "r1", store, LEDGER, QUEUE
    )

    assert keys_of(found.photographs.entries()) == ["cutouts/a.png"]


@pytest.mark.parametrize("output", ["s3://b", "s3://b/in"])
def test_results_do_not_land_among_the_sources(store: LocalStore, output: str) -> None:
    put(store, "in/a.jpg")

    with pytest.raises(InvalidConfig, match="choose another --output"):
        collect("s3://b/in/", OutputPlaces(output=output), "r1", store, LEDGER, QUEUE)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("m.csv", 'bucket,key\nb,1.jpg\nb,"2, 3.jpg"\n'),
        ("m.csv", 'key,bucket\n1.jpg,b\n"2, 3.jpg",b\n'),
        ("m.csv", '\ufeffBucket,Key\r\nb,1.jpg\r\n\r\nb,"2, 3.jpg"\r\n'),
        ("m.csv", 'b,1.jpg\nb,"2, 3.jpg"\n'),
        ("m.jsonl", '{"bucket":"b","key":"1.jpg"}\n\n{"bucket":"b","key":"2, 3.jpg"}\n'),
        ("m", '{"bucket":"b","key":"1.jpg"}\n{"bucket":"b","key":"2, 3.jpg","etag":null}'),
    ],
)
def test_manifests_in_every_form(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text, newline="")

    assert manifest(path) == [Entry("b", "1.jpg"), Entry("b", "2, 3.jpg")]


def test_a_manifest_s_optional_columns(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text('bucket,key,etag,version_id,job_id\nb,k,"""e""",v,j\nb,l,,,\n')

    assert manifest(path) == [Entry("b", "k", "e", "v", "j"), Entry("b", "l")]


@pytest.mark.parametrize("name", ["m.csv.gz", "m.jsonl.gz", "m.csv", "m"])
def test_compressed_manifests(tmp_path: Path, name: str) -> None:
    text = '{"bucket":"b","key":"1.jpg"}\n' if "jsonl" in name else "bucket,key\nb,1.jpg\n"
    (tmp_path / name).write_bytes(gzip.compress(text.encode()))

    found = ManifestSource(tmp_path / name)

    assert list(found.entries()) == [Entry("b", "1.jpg")]
    assert (found.total, found.buckets) == (1, {"b"})


def test_a_compressed_manifest_that_was_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "m.csv.gz"
    path.write_bytes(gzip.compress(b"b,1.jpg\n" * 1_000)[:-9])

    with pytest.raises(InvalidConfig, match=r"m\.csv\.gz"):
        ManifestSource(path)


def test_keys_of_an_inventory_are_decoded(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text("b,a+b%2B.jpg\n")

    assert keys_of(manifest(path, url_encoded=True)) == ["a b+.jpg"]
    assert keys_of(manifest(path)) == ["a+b%2B.jpg"]


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("m.csv", "b,1.jpg\nb\nb,\n", ["2 bad lines", "line 2: 1 columns", "line 3: key"]),
        ("m.csv", "bucket,key,size\nb,k,12\n", ["line 2: size"]),
        ("m.jsonl", '{"bucket":"b"}\n[1]\n{', ["line 1: key", "line 2: not a JSON ob", "line 3"]),
        (
            "m.csv",
            "bucket,key,job_id\nb,1,x\nb,2,x\n",
            ["line 3: job_id 'x' is that of an earlier line"],
        ),
        ("m.jsonl", '{"bucket":"b","key":"k","job_id":7}', ["line 1: job_id"]),
        ("m.csv", "\n".join("x" for _ in range(30)), ["30 bad lines", "and 20 more"]),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, name: str, text: str, expected: list[str]) -> None:
    path = tmp_path / name
    path.write_text(text)

    with pytest.raises(InvalidConfig) as raised:
        ManifestSource(path)

    for part in expected:
        assert part in raised.value.message


def test_a_manifest_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")

    for name in ("missing.csv", "binary.csv"):
        with pytest.raises(InvalidConfig, match=name):
            ManifestSource(tmp_path / name)


def test_several_buckets_need_an_output(store: LocalStore, tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text("b,1.jpg\nc,1.jpg\n")

    with pytest.raises(InvalidConfig, match="several buckets"):
        collect(str(path), OutputPlaces(), "r1", store, LEDGER, QUEUE)
    found = collect(str(path), OutputPlaces(output="s3://o/p"), "r1", store, LEDGER, QUEUE)
    assert found.output == Output(bucket="o", prefix="p/")


def test_a_folder_is_uploaded_without_what_lies_outside(store: LocalStore, tmp_path: Path) -> None:
    folder = tmp_path / "photographs"
    (folder / "sub").mkdir(parents=True)
    (tmp_path / "secret").mkdir()
    for path in ("photographs/1.jpg", "photographs/sub/2.png", "secret/s.jpg"):
        (tmp_path / path).write_bytes(b"x")
    (folder / "notes.txt").write_text("x")
    (folder / "out.jpg").symlink_to(tmp_path / "secret" / "s.jpg")
    (folder / "again.jpg").symlink_to(folder / "1.jpg")
    (folder / "linked").symlink_to(tmp_path / "secret")

    found = collect(str(folder), OutputPlaces(), "r1", store, LEDGER, QUEUE)
    upload(store, found.uploads)

    expected = ["uploads/r1/1.jpg", "uploads/r1/again.jpg", "uploads/r1/sub/2.png"]
    assert keys_of(found.photographs.entries()) == expected
    assert [item.key for item in store.list("b", "")] == expected
    assert found.photographs.skipped == 2


def test_a_failed_upload_ends_the_run(store: LocalStore, tmp_path: Path) -> None:
    files = [FileUpload(tmp_path / f"{i}.jpg", "b", f"{i}.jpg") for i in range(3)]

    with pytest.raises(InvalidConfig, match=r"\.jpg"):
        upload(store, files)


def test_messages_are_what_the_ingest_reads() -> None:
    plan = plan_of([Entry("b", "1.jpg", "e1"), Entry("b", "2.jpg", None, "v2", "mine")])

    output = OUTPUT.model_dump()
    bodies = [message_body("r1", output, "cutout", entry) for entry in plan.entries()]
    first, second = (parse(body, QUEUE)[0] for body in bodies)

    assert (first.run_id, first.source.key, first.source.etag) == ("r1", "1.jpg", "e1")
    assert (second.job_id, second.source.version_id) == ("mine", "v2")
    assert first.output == OUTPUT


def test_jobs_keep_their_ids_within_a_run() -> None:
    entries = [Entry("b", "1.jpg", "e1")]
    first, second = (next(plan_of(entries).entries()) for _ in range(2))

    assert first.job_id == second.job_id
    assert next(plan_of(entries, run_id="r2").entries()).job_id != first.job_id
    assert next(plan_of([Entry("b", "1.jpg", "e2")]).entries()).job_id != first.job_id


def test_a_photograph_named_twice_is_sent_once() -> None:
    plan = plan_of([Entry("b", "1.jpg"), Entry("b", "1.jpg"), Entry("b", "2.jpg")])

    assert keys_of(plan.entries()) == ["1.jpg", "2.jpg"]


def test_a_run_of_nothing_and_a_run_with_a_bad_name() -> None:
    with pytest.raises(InvalidConfig, match="no images"):
        plan_of([])
    for name in ("../x", "live", "invalid", ""):
        with pytest.raises(InvalidConfig, match="run_id"):
            plan_of([Entry("b", "1.jpg")], run_id=name)


def test_new_run_ids_differ_and_are_allowed() -> None:
    first, second = new_run_id(), new_run_id()

    assert first != second
    plan_of([Entry("b", "1.jpg")], run_id=first)


@pytest.mark.parametrize("text", ["nope", '{"format":"gif"}', "{", '{"format":'])
def test_a_recipe_is_checked_before_anything_is_sent(text: str) -> None:
    with pytest.raises(InvalidRecipe):
        bulk.recipe_argument(text)


def test_an_inline_recipe_travels_as_it_is() -> None:
    assert bulk.recipe_argument('{"format": "webp"}') == {"format": "webp"}


def test_the_manifest_comes_first_and_counts_the_messages(store: LocalStore) -> None:
    class CheckingSqs(FakeSqs):
        def send_message_batch(self, QueueUrl: str, Entries: list[Any]) -> dict[str, Any]:  # noqa: N803
            assert read_manifest(store, LEDGER, "r1").jobs == 25
            return super().send_message_batch(QueueUrl, Entries)

    client = CheckingSqs()
    seen: list[int] = []
    plan = plan_of([Entry("b", f"{i}.jpg") for i in range(25)])

    def observe(*, sent: int, listed: int, complete: bool) -> None:
        assert (listed, complete) == (25, True)
        seen.append(sent)

    bulk.send_run(client, QUEUE.url, store, LEDGER, plan, observe)  # type: ignore[arg-type]

    assert sorted(json.loads(body)["source"]["key"] for body in client.bodies) == sorted(
        keys_of(plan.entries())
    )
    assert seen == [10, 20, 25]
    assert client.calls == 3


def test_a_queue_that_does_not_exist_leaves_no_run(store: LocalStore) -> None:
    class NoQueue(FakeSqs):
        def get_queue_attributes(self, **_: Any) -> dict[str, Any]:
            code = {"Error": {"Code": "AWS.SimpleQueueService.NonExistentQueue"}}
            raise ClientError(code, "GetQueueAttributes")  # type: ignore[arg-type]

    with pytest.raises(QueueUnavailable, match="create it"):
        bulk.send_run(NoQueue(), QUEUE.url, store, LEDGER, plan_of([Entry("b", "1.jpg")]))  # type: ignore[arg-type]
    assert list(store.list("b", "")) == []


def test_a_run_that_was_sent_is_not_sent_again(store: LocalStore) -> None:
    client: Any = FakeSqs()
    entries = [Entry("b", "1.jpg")]
    first = bulk.send_run(client, QUEUE.url, store, LEDGER, plan_of(entries))

    again = bulk.send_run(client, QUEUE.url, store, LEDGER, plan_of(entries))

    assert again.created_at == first.created_at
    assert len(client.bodies) == 1


def test_another_run_under_its_name_is_refused(store: LocalStore) -> None:
    client: Any = FakeSqs()
    entries = [Entry("b", "1.jpg")]
    bulk.send_run(client, QUEUE.url, store, LEDGER, plan_of(entries, description="s3://b/in/"))

    with pytest.raises(InvalidConfig, match=r"another source \(s3://b/in/"):
        bulk.send_run(client, QUEUE.url, store, LEDGER, plan_of(entries, description="other"))
    other = bulk.plan_run(
        entries, run_id="r1", description="s3://b/in/", output=OUTPUT, recipe="mask"
    )
    with pytest.raises(InvalidConfig, match=r"another recipe: .* choose another --run-id"):
        bulk.send_run(client, QUEUE.url, store, LEDGER, other)


def test_entries_that_failed_are_sent_again_alone() -> None:
    def refuse(call: int, entries: list[Any]) -> list[Any]:
        code = {"SenderFault": False, "Code": "InternalError"}
        return [{"Id": item["Id"], **code} for item in entries[call + 1 :]] if call < 2 else []

    client: Any = FakeSqs(refuse)
    waits: list[float] = []

    sending.send_messages(client, QUEUE.url, list("abcde"), sleep=waits.append)

    assert sorted(client.bodies) == list("abcde")
    assert client.calls == 3
    assert len(waits) == 2


@pytest.mark.parametrize(("fault", "calls"), [(True, 1), (False, 6)])
def test_a_message_that_is_never_accepted_is_an_error(fault: bool, calls: int) -> None:
    def refuse(_: int, entries: list[Any]) -> list[Any]:
        return [{"Id": item["Id"], "SenderFault": fault, "Code": "No"} for item in entries]

    client: Any = FakeSqs(refuse)

    with pytest.raises(QueueUnavailable, match="No"):
        sending.send_messages(client, QUEUE.url, ["a"], sleep=lambda _: None)
    assert client.calls == calls


def test_batches_obey_both_limits() -> None:
    small = list(sending.batches(str(i) for i in range(21)))
    large = list(sending.batches("ä" * 50_000 for _ in range(5)))

    assert [len(batch) for batch in small] == [10, 10, 1]
    assert [len(batch) for batch in large] == [2, 2, 1]
    assert list(sending.batches([])) == []


def test_settings_come_from_both_kinds_of_file(tmp_path: Path) -> None:
    plain, serve = tmp_path / "plain.yaml", tmp_path / "serve.yaml"
    plain.write_text("ledger: {bucket: l}\nqueue:\n")
    serve.write_text("applications:\n- import_path: x:y\n  args:\n    ledger: {bucket: l}\n")

    for path in (plain, serve):
        args = settings(path, "http://q", None, None, ["segmenter.threads=4"])
        config = AppConfig.load(args)
        assert config.queue is not None
        assert config.queue.url == "http://q"
        assert config.ledger == LedgerConfig(bucket="l")
        assert config.segmenter.threads == 4


@pytest.mark.parametrize("text", ["- 1", "applications: []", "a: [", "applications: {a: 1}"])
def test_files_that_hold_no_settings(tmp_path: Path, text: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)

    with pytest.raises(InvalidConfig, match=r"c\.yaml"):
        load_file(path)


def test_a_setting_below_a_value_is_refused() -> None:
    with pytest.raises(InvalidConfig, match="models"):
        override({"models": ["a"]}, "models.x", 1)


def test_a_store_that_does_not_answer_ends_the_listing() -> None:
    class DeadStore(LocalStore):
        def list(self, bucket: str, prefix: str, after: str | None = None) -> Any:
            raise StorageUnavailable("down")

    found = collect("s3://b/", OutputPlaces(), "r1", DeadStore(Path()), LEDGER, QUEUE)
    with pytest.raises(StorageUnavailable):
        list(found.photographs.entries())
