"""The CutoutPipeline deployment, which processes an image from start to end."""
