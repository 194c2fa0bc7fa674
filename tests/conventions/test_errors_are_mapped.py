"""Every exception of a library becomes one of our errors at the boundary where it enters.

Each test walks the exception classes of a library. It raises an instance of each at the place where
the library would raise it, and compares what our code makes of it with what it should be. A class
that a new version of a library adds fails the test until somebody decides what it means.
"""

from __future__ import annotations

import asyncio
import struct
import sys
import zlib
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import aiohttp
import botocore.exceptions
import numpy as np
import onnxruntime
import onnxruntime.capi.onnxruntime_pybind11_state as onnxruntime_errors
import pytest
import ray.exceptions
import ray.serve.exceptions
import urllib3.exceptions
from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError
from botocore.response import StreamingBody
from PIL import Image
from ray.exceptions import RayTaskError

from ingest.sqs.backlog import read_backlog
from ingest.sqs.queue_client import QueueClient
from serve_app import errors
from serve_app.aws import aws_client
from serve_app.config import AppConfig, AwsConfig, HttpConfig, ImageLimits
from serve_app.errors import BY_CODE, ForeedgeError
from serve_app.http.api_keys import read_api_keys
from serve_app.http.url_fetch import fetch_image
from serve_app.imaging.decode import decode_image
from serve_app.models.inference import load_model
from serve_app.serving.handle_calls import call_deployment
from serve_app.storage.s3 import S3Store
from tests.support import graphs
from tests.support.images import flat
from tests.support.library_errors import Kind, exceptions_in, instance_of, raising

AWS = AwsConfig(endpoint_url="http://127.0.0.1:9")


def outcome_of(call: Callable[[], Any]) -> Kind:
    """Return the class of our error that a call raises. Any other exception fails the test."""
    with pytest.raises(ForeedgeError) as caught:
        call()
    return caught.type


def names(found: Mapping[Kind, Kind]) -> dict[str, str]:
    """Return a table of classes as one of their names, which pytest compares line by line."""
    return {kind.__name__: error.__name__ for kind, error in found.items()}


# --- botocore: storage.s3, ingest.sqs.errors, http.api_keys ---

BOTOCORE: set[Kind] = {
    kind for kind in exceptions_in(botocore.exceptions) if issubclass(kind, BotoCoreError)
}
STORE_CALLS: dict[str, Callable[[S3Store], Any]] = {
    "GetObject": lambda store: store.get("b", "k"),
    "HeadObject": lambda store: store.head("b", "k"),
    "PutObject": lambda store: store.put("b", "k", b"", "image/png"),
    "PutObject, if absent": lambda store: store.put_if_absent("b", "k", b"", "image/png"),
    "GetObject, in chunks": lambda store: list(store.chunks("b", "k")),
    "ListObjectsV2": lambda store: list(store.list("b", "")),
    "ListObjectsV2, keys": lambda store: list(store.keys("b", "")),
}
S3_CODES = {
    errors.SourceNotFound: """
        NoSuchKey NoSuchBucket NoSuchVersion 404 InvalidBucketName KeyTooLongError InvalidURI
        InvalidArgument
    """,
    errors.SourceForbidden: "AccessDenied AllAccessDisabled",
    errors.SourceArchived: "InvalidObjectState",
    errors.StorageRejected: "EncryptionTypeMismatch InvalidWriteOffset TooManyParts NotImplemented",
    errors.SourceChanged: "PreconditionFailed 412",
    errors.StorageUnavailable: """
        SlowDown 503 InternalError 500 ServiceUnavailable RequestTimeout ConditionalRequestConflict
        ExpiredToken InvalidAccessKeyId SignatureDoesNotMatch RequestTimeTooSkewed OperationAborted
        InvalidRequest
    """,
}


@pytest.fixture
def aws_raises(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """Return a function that lets every call of every boto3 client raise an exception."""

    def arrange(error: BaseException) -> None:
        def refuse(*_: Any) -> NoReturn:
            raise error

        monkeypatch.setattr("botocore.client.BaseClient._make_api_call", refuse)

    return arrange


@pytest.mark.parametrize("call", STORE_CALLS)
def test_botocores_exceptions_of_s3(call: str, aws_raises: Callable[[BaseException], None]) -> None:
    store, found = S3Store(aws_client("s3", AWS)), {}
    for kind in BOTOCORE:
        aws_raises(instance_of(kind))
        found[kind] = outcome_of(lambda: STORE_CALLS[call](store))
    assert names(found) == names(
        {
            kind: errors.SourceNotFound
            if issubclass(kind, ParamValidationError)
            else errors.StorageUnavailable
            for kind in BOTOCORE
        }
    )


@pytest.mark.parametrize("error", S3_CODES)
def test_error_codes_of_s3(
    error: type[ForeedgeError], aws_raises: Callable[[BaseException], None]
) -> None:
    store = S3Store(aws_client("s3", AWS))
    for code in S3_CODES[error].split():
        aws_raises(ClientError({"Error": {"Code": code}}, "GetObject"))
        assert outcome_of(lambda: store.get("b", "k")) is error, code


def test_every_error_of_the_calls_to_s3_has_a_place() -> None:
    model = aws_client("s3", AWS).meta.service_model
    modelled = {
        shape.metadata.get("error", {}).get("code", shape.name)
        for call in STORE_CALLS
        for shape in model.operation_model(call.partition(",")[0]).error_shapes
    }
    assert modelled - set(" ".join(S3_CODES.values()).split()) == set()


def test_a_body_that_breaks_off(monkeypatch: pytest.MonkeyPatch) -> None:
    store, found = S3Store(aws_client("s3", AWS)), {}
    answer: dict[str, Any] = {"ContentLength": 1}
    monkeypatch.setattr("botocore.client.BaseClient._make_api_call", lambda *_: answer)
    kinds: set[Kind] = {
        kind
        for kind in exceptions_in(urllib3.exceptions)
        if issubclass(kind, urllib3.exceptions.HTTPError)
    }
    for kind in kinds:
        stream = SimpleNamespace(read=raising(instance_of(kind)), close=lambda: None)
        answer["Body"] = StreamingBody(stream, 1)  # type: ignore[arg-type]
        found[kind] = outcome_of(lambda: store.get("b", "k"))
    assert names(found) == names(dict.fromkeys(kinds, errors.StorageUnavailable))


def test_botocores_exceptions_of_sqs(aws_raises: Callable[[BaseException], None]) -> None:
    kinds, found = {*BOTOCORE, ClientError, ValueError}, {}
    client = aws_client("sqs", AWS)
    for kind in kinds:
        aws_raises(instance_of(kind))
        found[kind] = outcome_of(lambda: read_backlog(QueueClient(client, "http://127.0.0.1:9/q")))
    assert names(found) == names(dict.fromkeys(kinds, errors.QueueUnavailable))


def test_botocores_exceptions_of_secrets_manager(
    aws_raises: Callable[[BaseException], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds, found = {*BOTOCORE, ClientError, ValueError}, {}
    # A client takes 0.3 s to make: one for all exceptions.
    client = aws_client("secretsmanager", AWS)
    monkeypatch.setattr("boto3.session.Session.client", lambda *_, **__: client)
    for kind in kinds:
        aws_raises(instance_of(kind))
        found[kind] = outcome_of(lambda: read_api_keys(HttpConfig(api_keys_secret="s"), AWS))
    assert names(found) == names(dict.fromkeys(kinds, errors.InvalidConfig))


def test_a_defect_of_ours_does_not_pass_for_an_outage(
    aws_raises: Callable[[BaseException], None],
) -> None:
    aws_raises(KeyError("k"))
    with pytest.raises(KeyError):
        S3Store(aws_client("s3", AWS)).get("b", "k")


# --- Pillow: imaging.decode ---


def pillow_kinds() -> set[Kind]:
    """Return Pillow's own exceptions, and those of Python that its decoders raise."""
    Image.init()
    modules = [module for name, module in list(sys.modules.items()) if name.startswith("PIL.")]
    own = {kind for kind in exceptions_in(*modules) if kind.__module__.startswith("PIL")}
    broken_data = (EOFError, IndexError, KeyError, NotImplementedError, OSError, OverflowError)
    return {*own, *broken_data, SyntaxError, TypeError, ValueError, struct.error, zlib.error}


def test_pillows_exceptions_of_a_header(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds, found, data = pillow_kinds(), {}, flat(8, 8)
    for kind in kinds:
        monkeypatch.setattr(Image, "open", raising(instance_of(kind)))
        found[kind] = outcome_of(lambda: decode_image(data, ImageLimits()))
    assert names(found) == names(dict.fromkeys(kinds, errors.CorruptImage))


def test_pillows_exceptions_of_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds, found, data = pillow_kinds(), {}, flat(8, 8)
    for kind in kinds:
        monkeypatch.setattr("PIL.ImageFile.ImageFile.load", raising(instance_of(kind)))
        found[kind] = outcome_of(lambda: decode_image(data, ImageLimits()))
    assert names(found) == names(dict.fromkeys(kinds, errors.CorruptImage))


def test_a_lack_of_memory_is_not_the_images_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", raising(MemoryError()))
    with pytest.raises(MemoryError):
        decode_image(flat(8, 8), ImageLimits())


# --- ONNX Runtime: models.inference ---


def test_onnx_runtimes_exceptions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = exceptions_in(onnxruntime_errors)
    file = graphs.brightness(tmp_path / "own.onnx")
    config = AppConfig.load({"models": ["own"], "model_files": {"own": file}})
    running, loading = {}, {}
    model = load_model("own", config)
    image = np.zeros((1, model.size_px, model.size_px, 3), np.uint8)
    for kind in kinds:
        monkeypatch.setattr(onnxruntime.InferenceSession, "run", raising(instance_of(kind)))
        running[kind] = outcome_of(lambda: model.masks(image))
        monkeypatch.setattr(onnxruntime, "InferenceSession", raising(instance_of(kind)))
        loading[kind] = outcome_of(lambda: load_model("own", config))
        monkeypatch.undo()
    assert names(running) == names(dict.fromkeys(kinds, errors.ModelUnavailable))
    assert names(loading) == names(dict.fromkeys(kinds, errors.InvalidConfig))


# --- Ray: serving.handle_calls ---

RAY_NAMES: dict[Kind, str] = {
    errors.ReplicaLost: """
        RayActorError ActorDiedError ActorUnavailableError ActorPlacementGroupRemoved
        WorkerCrashedError NodeDiedError LocalRayletDiedError OutOfMemoryError RpcError
        ObjectLostError ObjectFetchTimedOutError ObjectFreedError ObjectReconstructionFailedError
        OwnerDiedError ReferenceCountingAssertionError RaySystemError RayCgraphCapacityExceeded
        RayChannelError RayChannelTimeoutError RayDirectTransportError
        StreamingGeneratorReplayInconsistentError ReplicaUnavailableError TaskCancelledError
        RequestCancelledError
    """,
    errors.Overloaded: """
        BackPressureError PendingCallsLimitExceeded ObjectStoreFullError OutOfDiskError
    """,
    errors.ModelUnavailable: "DeploymentUnavailableError ActorUnschedulableError",
    errors.InternalError: """
        RayError RayTaskError RayServeException gRPCStatusError ActorAlreadyExistsError
        ActorHandleNotFoundError AsyncioActorExit AuthenticationError CrossLanguageError
        GetTimeoutError ObjectRefStreamEndOfStreamError OufOfBandObjectRefSerializationException
        PlasmaObjectNotAvailable RuntimeEnvSetupError TaskPlacementGroupRemoved
        TaskUnschedulableError UnserializableException UserCodeException
    """,
}


class FailedResponse:
    """A response of a deployment handle that ends with an exception."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def __await__(self) -> Generator[None, None, NoReturn]:
        yield
        raise self._error

    def cancel(self) -> None:
        """See DeploymentResponse."""


async def outcome_of_a_call(error: BaseException) -> Kind:
    with pytest.raises(ForeedgeError) as caught:
        await call_deployment(FailedResponse(error), 60)
    return caught.type


async def test_rays_exceptions() -> None:
    kinds = exceptions_in(ray.exceptions, ray.serve.exceptions)
    found = {kind.__name__: await outcome_of_a_call(instance_of(kind)) for kind in kinds}
    assert found == {name: error for error, text in RAY_NAMES.items() for name in text.split()}


@pytest.mark.parametrize("error", BY_CODE.values())
async def test_our_errors_come_out_of_rays(error: type[ForeedgeError]) -> None:
    wrapped = RayTaskError("process", "Traceback", error("reason"))
    for raised in (error("reason"), wrapped, wrapped.as_instanceof_cause()):
        assert await outcome_of_a_call(raised) is error


async def test_a_replica_that_ends_cancels_what_it_holds() -> None:
    assert await outcome_of_a_call(asyncio.CancelledError()) is errors.ReplicaLost


# --- aiohttp: http.url_fetch ---


async def test_aiohttps_exceptions(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = {kind for kind in exceptions_in(aiohttp) if issubclass(kind, aiohttp.ClientError)}
    found: dict[Kind, Kind] = {}
    for kind in {*kinds, OSError, TimeoutError}:
        monkeypatch.setattr(aiohttp.TCPConnector, "connect", raising(instance_of(kind)))
        found[kind] = await outcome_of_a_fetch()
    assert names(found) == names(
        {
            kind: errors.DeadlineExceeded
            if issubclass(kind, TimeoutError)
            else errors.StorageUnavailable
            for kind in {*kinds, OSError, TimeoutError}
        }
    )


async def outcome_of_a_fetch() -> Kind:
    async def resolve(host: str, port: int) -> list[str]:
        return ["1.1.1.1"]

    config = HttpConfig(fetch_hosts=("host.example",))
    with pytest.raises(ForeedgeError) as caught:
        await fetch_image("http://host.example/1.jpg", config, 1_000, lambda size: None, resolve)
    return caught.type
