"""The tests: what each folder needs is said by its name."""
