"""A consumer with its pipeline in one process, to be killed: ``worker.py SETTINGS``."""

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
    asked = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asked.set)
    async with consuming(AppConfig.load(json.loads(settings))) as consumer:
        await asked.wait()
    print(json.dumps(asdict(consumer.stats)), flush=True)
    # Threads that a held request keeps would be waited for.
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
