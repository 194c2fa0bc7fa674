"""Sources of a run's images: an S3 prefix, an S3 Inventory, a manifest, a local folder."""
