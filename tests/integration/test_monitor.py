"""``foreedge serve --monitor``: Prometheus ends with the command, however that ends.

``test_commands`` shows that it has the application's data.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from ingest.local.ports import free_port
from tests.integration.test_commands import STOP_TIMEOUT_S

ALONE = """
import sys, time
from pathlib import Path
from ingest.local.monitor import Monitor, monitoring
with monitoring(Monitor(sys.argv[1], int(sys.argv[2])), Path(sys.argv[3])):
    print("ready", flush=True)
    time.sleep(300)
"""


@pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="prometheus is missing: apt-get install prometheus"
)
def test_prometheus_ends_with_a_process_that_is_killed(tmp_path: Path) -> None:
    port, program = free_port(), str(shutil.which("prometheus"))
    process = subprocess.Popen(
        [sys.executable, "-c", ALONE, program, str(port), str(tmp_path)], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    with process.stdout as output:
        assert output.readline() == b"ready\n"
    [prometheus] = psutil.Process(process.pid).children()
    process.send_signal(signal.SIGKILL)
    process.wait(STOP_TIMEOUT_S)
    assert psutil.wait_procs([prometheus], timeout=STOP_TIMEOUT_S)[1] == []
