"""Load tests, benchmarks and the tuner. ``loadtests/README.md`` lists their commands."""
