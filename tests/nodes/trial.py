"""Two machines without Ray, and what they see of each other, for the tests of the harness.

``python -m tests.nodes.trial FOLDER`` in the namespaces of ``ground.COMMAND`` prints one line of
JSON. With ``--hang`` it then waits to be interrupted.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.nodes.ground import FOLDER_VARIABLE
from tests.nodes.machines import HOST, Machine, Network

_PATH = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
_SERVER = (sys.executable, "-m", "http.server", "8000", "--directory", "/tmp")


def main() -> None:
    folder = Path(sys.argv[1])
    variables = {**_PATH, FOLDER_VARIABLE: os.environ[FOLDER_VARIABLE]}
    with ExitStack() as kept:
        with Network(folder) as network:
            first = network.boot("first", _SERVER, variables)
            second = network.boot("second", _SERVER, variables)
            if "--hang" in sys.argv:
                print("ready", flush=True)
                time.sleep(600)
            # The kernel removes the link of a machine some time after it, which this puts off.
            kept.enter_context(Path(f"/proc/{first.pid}/ns/net").open())
            seen = _seen(first, second)
        with Network(folder) as network:
            third = network.boot("third", _SERVER, variables)
            seen["reached in the next network"] = _reaches(third, HOST)
    print(json.dumps(seen))


def _seen(first: Machine, second: Machine) -> dict[str, Any]:
    seen: dict[str, Any] = {"addresses": [first.address, second.address]}
    first.call(["sh", "-c", "echo a > /tmp/note; echo a > /dev/shm/note"], _PATH)
    seen["process 1"] = first.call(["cat", "/proc/1/cmdline"], _PATH).replace("\0", " ").strip()
    seen["processes"] = first.call(["sh", "-c", "ls -d /proc/[0-9]* | wc -l"], _PATH)
    seen["/tmp of the first"] = first.call(["ls", "/tmp"], _PATH).split()
    seen["/tmp of the second"] = second.call(["ls", "/tmp"], _PATH).split()
    seen["/dev/shm of the second"] = second.call(["ls", "/dev/shm"], _PATH).split()
    seen["here"] = [one.name for one in Path("/dev/shm").iterdir()]
    seen["reached"] = _reaches(second, first.address), _reaches(second, HOST)
    first.unplug()
    seen["reached while cut off"] = _reaches(second, first.address)
    first.plug()
    seen["reached when healed"] = _reaches(second, first.address)
    # Its process 1 handles no SIGTERM, and the kernel then protects it.
    first.terminate()
    seen["ended by SIGTERM"] = first.wait(0.5) is not None
    first.kill()
    seen["runs after a kill"] = first.runs
    seen["second runs"] = second.runs
    return seen


def _reaches(machine: Machine, address: str) -> bool:
    """Return whether a machine gets an answer from an address, in one of three attempts."""
    probe = (
        "import socket, sys\n"
        "try:\n"
        "    socket.create_connection((sys.argv[1], 8000), 2).close()\n"
        "except ConnectionRefusedError:\n"
        "    pass\n"
        "except OSError:\n"
        "    sys.exit(1)\n"
    )
    for _ in range(3):
        try:
            machine.call([sys.executable, "-c", probe, address], _PATH)
        except subprocess.CalledProcessError:
            continue
        return True
    return False


if __name__ == "__main__":
    main()
