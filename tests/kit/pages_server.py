"""An HTTP port with a folder of pages: python -m tests.kit.pages_server FOLDER, until standard input ends."""

import asyncio
import sys
from pathlib import Path

from bgan.serving.config.settings import ServerSettings
from bgan.serving.rpc.context import ServiceContext
from bgan.serving.rpc.guard import CallGuard
from bgan.serving.rpc.open_inference import OpenInferenceServicer
from bgan.serving.rpc.sampling import SamplingServicer
from bgan.serving.server.health import Health
from bgan.serving.server.ports import bound_socket
from bgan.serving.telemetry.metrics import NO_METRICS
from bgan.serving.web.app import make_app
from bgan.serving.web.listener import WebListener


async def main(folder):
    settings = ServerSettings(http_port=0)
    context = ServiceContext.build(settings, NO_METRICS, None)
    services = SamplingServicer(context), OpenInferenceServicer(context), Health(context)
    app = make_app(context, CallGuard(context), *services, pages=folder)
    listener = WebListener(app, settings, None, max_connections=100)
    print(await listener.start(bound_socket("127.0.0.1", 0)), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await listener.stop(0)
    context.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
