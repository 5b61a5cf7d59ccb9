"""A process that holds the embedded stores: prints their URLs, or why there are none, and leaves at its input's end."""

import asyncio
import json
import sys
from dataclasses import asdict
from pathlib import Path

from service.adapters.embedded import embedded_stores
from service.model.errors import ConfigurationError


async def main(data: Path) -> None:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(0, ended.set)
    try:
        async with embedded_stores(data) as urls:
            print(json.dumps(asdict(urls)), flush=True)
            await ended.wait()
    except ConfigurationError as error:
        print(json.dumps({"error": str(error)}), flush=True)
    finally:
        asyncio.get_running_loop().remove_reader(0)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
