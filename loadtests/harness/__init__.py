"""What all benchmarks share: the application, the corpus, metering and results."""
