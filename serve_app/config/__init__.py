"""AppConfig and its sections: the only source of settings.

A value comes from, in order of precedence:

1. the arguments of ``build`` (``args`` in a Serve YAML file, ``serve run ... key=value``, or the
   command line of ``foreedge``),
2. the environment (``FOREEDGE_`` and the name, with ``__`` between the section and the setting, as
   in ``FOREEDGE_QUEUE__URL``),
3. the default.

Nothing else in this project reads the environment. boto3 finds credentials in its own way.
"""

from serve_app.config.app_config import AppConfig
from serve_app.config.catalog import CatalogConfig
from serve_app.config.deployments import (
    ImageLimits,
    PipelineConfig,
    ScalingConfig,
    SegmenterConfig,
)
from serve_app.config.http_endpoint import HttpConfig, check_api_keys
from serve_app.config.section import NonEmpty, NotNegative, Positive, Seconds, Section
from serve_app.config.services import AwsConfig, LedgerConfig, QueueConfig, StorageConfig

__all__ = [
    "AppConfig",
    "AwsConfig",
    "CatalogConfig",
    "HttpConfig",
    "ImageLimits",
    "LedgerConfig",
    "NonEmpty",
    "NotNegative",
    "PipelineConfig",
    "Positive",
    "QueueConfig",
    "ScalingConfig",
    "Seconds",
    "Section",
    "SegmenterConfig",
    "StorageConfig",
    "check_api_keys",
]
