"""OpenAPI descriptions that FastAPI cannot derive: image bodies, response headers, forms, jobs."""

from __future__ import annotations

from typing import Any

from serve_app.contracts.job import RUN_ID_PATTERN
from serve_app.contracts.recipe import MEDIA_TYPES
from serve_app.http.rembg_parameters import RembgParameters

MAX_JOBS = 1_000
"""Maximum number of jobs in one request."""

_BINARY = {"type": "string", "format": "binary"}
_READABLE_TYPES = ("image/jpeg", "image/png", "image/webp", "image/tiff", "image/bmp", "image/gif")


def _header(description: str, example: str) -> dict[str, Any]:
    return {"description": description, "schema": {"type": "string"}, "example": example}


# --- POST /v1/cutout ---

_CUTOUT_FORM: dict[str, Any] = {
    "type": "object",
    "required": ["file"],
    "properties": {
        "file": {**_BINARY, "description": "Image file. The name of the field does not matter."},
        "recipe": {
            "type": "string",
            "description": "Name of a preset, or a recipe as a JSON object. It may also be a file.",
        },
    },
    "additionalProperties": {
        "type": "string",
        "description": "Value of the query parameter of the same name.",
    },
}

CUTOUT_BODY: dict[str, Any] = {
    "required": True,
    "description": "The image file, whatever its `Content-Type`, or a form that contains it.",
    "content": {
        **{media_type: {"schema": _BINARY} for media_type in _READABLE_TYPES},
        "application/octet-stream": {"schema": _BINARY},
        "multipart/form-data": {"schema": _CUTOUT_FORM},
    },
}

_FINGERPRINT_EXAMPLE = "3f2a90c1b7d84e55a01f"

CUTOUT_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The cut-out, or the mask if `mask_only` is set.",
        "headers": {
            "ETag": _header(
                "Fingerprint of the result as an entity tag, for `If-None-Match`.",
                f'"{_FINGERPRINT_EXAMPLE}"',
            ),
            "Foreedge-Fingerprint": _header(
                "Fingerprint of the result. It is the same for the same image, recipe and models.",
                _FINGERPRINT_EXAMPLE,
            ),
            "Foreedge-Model": _header("Model whose mask passed the checks.", "folio"),
            "Foreedge-Mask-Confidence": _header(
                "Share of the subject about which the model was certain, from 0 to 1.", "0.982"
            ),
            "Foreedge-Subject": _header(
                "Bounding box of the subject in the image after its orientation was applied: left, "
                "top, right and bottom in pixels. Right and bottom are exclusive.",
                "112,40,910,1160",
            ),
            "Foreedge-Crop": _header(
                "Part of the image that the result shows, like the bounding box. It is absent "
                "unless the recipe crops to the subject.",
                "110,38,912,1162",
            ),
            "Server-Timing": _header(
                "Duration of each stage in milliseconds.",
                "decode;dur=10.1, resize;dur=4.2, segment;dur=12.8",
            ),
        },
        "content": {media_type: {"schema": _BINARY} for media_type in MEDIA_TYPES.values()},
    },
    304: {"description": "The client already has this result. Nothing was computed."},
}

# --- POST /v1/jobs ---

_JOB: dict[str, Any] = {
    "type": "object",
    "required": ["source"],
    "properties": {
        "job_id": {
            "type": "string",
            "maxLength": 200,
            "description": "Identifier of the job. Generated if it is missing.",
        },
        "run_id": {
            "type": "string",
            "pattern": RUN_ID_PATTERN,
            "description": "Run that the job belongs to. If it is missing, one identifier is "
            "generated for all jobs of the request.",
        },
        "source": {
            "type": "object",
            "description": "Object in S3 that holds the image.",
            "required": ["bucket", "key"],
            "properties": {
                "bucket": {"type": "string", "description": "Name of the bucket."},
                "key": {"type": "string", "description": "Key of the object."},
                "version_id": {
                    "type": ["string", "null"],
                    "description": "Version of the object. The latest version if it is missing.",
                },
                "etag": {
                    "type": ["string", "null"],
                    "description": "Expected ETag. The job fails with `source_changed` if the "
                    "object has another one.",
                },
            },
        },
        "output": {
            "type": "object",
            "description": "Place of the result. The default is a setting of the server.",
            "required": ["bucket"],
            "properties": {
                "bucket": {"type": "string", "description": "Name of the bucket."},
                "prefix": {"type": "string", "description": "Prefix of the key of the result."},
            },
        },
        "recipe": {
            "description": "Name of a preset, or a recipe as an object.",
            "oneOf": [{"type": "string"}, {"type": "object"}],
        },
    },
    "example": {
        "source": {"bucket": "images", "key": "in/1.jpg"},
        "output": {"bucket": "images", "prefix": "cutouts/"},
        "recipe": "catalog",
    },
}

JOBS_BODY: dict[str, Any] = {
    "required": True,
    "description": f"One job, or an array of up to {MAX_JOBS:,} jobs. The JSON Schema of a job is "
    "docs/schemas/native-message.json in the repository, next to those of all other messages.",
    "content": {
        "application/json": {
            "schema": {"oneOf": [_JOB, {"type": "array", "items": _JOB, "maxItems": MAX_JOBS}]}
        }
    },
}

# --- /api/remove ---

_REMBG_FIELDS: dict[str, dict[str, Any]] = RembgParameters.model_json_schema()["properties"]

REMBG_QUERY: list[dict[str, Any]] = [
    {
        "name": name,
        "in": "query",
        "required": False,
        "description": field["description"],
        "schema": {key: value for key, value in field.items() if key != "description"},
    }
    for name, field in _REMBG_FIELDS.items()
]

REMBG_URL: dict[str, Any] = {
    "name": "url",
    "in": "query",
    "required": True,
    "description": "HTTP or HTTPS URL of the image. Its host must be allowed by the server "
    "(`http.fetch_hosts`).",
    "schema": {"type": "string"},
}

REMBG_BODY: dict[str, Any] = {
    "required": True,
    "description": "A form with the image and, optionally, the parameters.",
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["file"],
                "properties": {
                    "file": {**_BINARY, "description": "Image file."},
                    **_REMBG_FIELDS,
                },
            }
        }
    },
}

REMBG_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The cut-out, or the mask if `om` is set, as PNG.",
        "content": {"image/png": {"schema": _BINARY}},
    }
}
