"""The report about the process in which the checks run."""

from __future__ import annotations

import json

from ingest.smoke.child import Report


def test_half_a_line_of_a_child_that_was_killed_is_left_out() -> None:
    begins = json.dumps({"begins": "model", "library": "onnxruntime"}) + "\n"
    ended = json.dumps({"ended": "model", "seconds": 1.5, "facts": {"onnx": "1"}}) + "\n"
    for kept in range(len(ended)):
        report = Report()
        report.read(begins + ended[:kept])
        assert (report.running, report.seconds) == (("model", "onnxruntime"), {})
    report = Report()
    report.read(begins + ended)
    assert (report.running, report.seconds) == (None, {"model": 1.5})


def test_the_check_that_was_running_is_named_if_the_time_is_over() -> None:
    report = Report()
    report.add({"begins": "u2netp", "library": "onnxruntime"})
    report.end_late(600.0)
    assert report.reason is not None
    assert report.reason.startswith("deadline_exceeded: u2netp did not end within 600 s")
