"""The CutoutPipeline deployment: one image from start to end."""
