"""The Segmenter deployment, which turns batches of images into masks."""
