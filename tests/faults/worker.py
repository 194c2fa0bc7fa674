"""A consumer with its pipeline in one process, to be killed: ``worker.py SETTINGS``."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from dataclasses import asdict

from rig import consuming

from serve_app.config import AppConfig


async def main(settings: str) -> None:
    asked = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asked.set)
    async with consuming(AppConfig.load(json.loads(settings))) as consumer:
        await asked.wait()
    print(json.dumps(asdict(consumer.stats)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
