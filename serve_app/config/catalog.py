"""Settings of the catalog: the application whose Postgres tables hold jobs."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, SecretStr, model_validator

from serve_app.config.section import NonEmpty, NotNegative, Seconds, Section
from serve_app.contracts.object_names import BucketName
from serve_app.errors import InvalidConfig

_SCHEMES = ("postgresql://", "postgres://")


class CatalogConfig(Section):
    """The tables of a book collection, in which its jobs and images are (docs/catalog.md)."""

    database_url: SecretStr | None = None
    """URL of the Postgres database, ``postgresql://user:password@host:5432/name``. Each option of
    libpq may follow, such as ``?sslmode=verify-full``. Exactly one of this and ``database_secret``
    is needed."""
    database_secret: NonEmpty | None = None
    """Name or ARN of a secret in AWS Secrets Manager with ``username``, ``password``, ``host``,
    ``port`` and ``dbname`` or ``database``. It is read again if a login is refused."""
    images_bucket: BucketName
    """Bucket of the images and the cut-outs, all below ``books/``."""
    cdn_domain: Annotated[str, Field(pattern=r"^[A-Za-z0-9.-]+$")] | None = None
    """Domain of the CloudFront distribution, for the URLs in the table. None leaves them empty."""
    row_wait_s: NotNegative = 10
    """Time, in seconds, for which a message waits for the row of its job. The application sends the
    message before it commits the row."""
    lost_after_s: Seconds = 86_400
    """Time, in seconds, for which a job may wait until it is sent again, since its message may be
    lost. A second message for a job that still waits does no harm."""

    @model_validator(mode="after")
    def _check_database(self) -> Self:
        if (self.database_url is None) == (self.database_secret is None):
            raise ValueError(
                "exactly one of catalog.database_url and catalog.database_secret is needed"
            )
        url = self.database_url
        if url is not None and not url.get_secret_value().startswith(_SCHEMES):
            # The text must not quote the URL, which has a password.
            raise ValueError("catalog.database_url must begin with postgresql://")
        return self


def missing_packages(error: ImportError) -> InvalidConfig:
    """Return the error of an installation without the packages of the catalog."""
    return InvalidConfig(
        f"catalog needs packages that are missing ({error}). Install them in the clone of Foreedge "
        "with: pip install -e '.[catalog]'"
    )
