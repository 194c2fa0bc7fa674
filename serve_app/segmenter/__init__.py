"""The Segmenter deployment: batches of images in, masks out."""
