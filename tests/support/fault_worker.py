"""A consumer with its pipeline in one process.

``python -m tests.support.fault_worker SETTINGS`` runs it until SIGTERM.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from dataclasses import asdict

from serve_app.config import AppConfig
from tests.support.fault_rig import consuming


async def main(settings: str) -> None:
    stop_requested = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop_requested.set)
    async with consuming(AppConfig.load(json.loads(settings))) as consumer:
        await stop_requested.wait()
    print(json.dumps(asdict(consumer.stats)), flush=True)
    # A normal exit would wait for the threads of held requests.
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
