"""Sources of photographs: an S3 prefix, an inventory, a manifest, a folder."""
