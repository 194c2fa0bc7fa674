"""The quality of masks: sets of images with true masks, metrics, and ``make quality``."""
