"""Parts that all benchmarks share: the application, images, models, metering and results."""
