"""`task=serve`: a bundle over HTTP."""

from __future__ import annotations

import logging

from embfit.bundle.settings import BundleSettings
from embfit.compose.tasks import task
from embfit.errors import ConfigError
from embfit.run.devices import Devices
from embfit.run.folder import RunFolder
from embfit.server import ServerSettings
from embfit.store import Store

log = logging.getLogger(__name__)

PACKAGES = ("fastapi", "orjson", "prometheus_client", "starlette", "uvicorn")


@task(outputs=("worker-*.txt",), restarts=True)
def serve(bundle: BundleSettings, server: ServerSettings, store: Store, run: RunFolder, devices: Devices) -> None:
    """Serve the champion of a bundle over HTTP until SIGTERM or Ctrl-C.

    Args:
        bundle: the bundle's name and folder.
        server: the address and the limits.
        store: keeps converted models.
        run: the run folder, which records the configuration and the log.
        devices: the first one computes; several workers are assigned to them in turn.

    Raises:
        ConfigError: FastAPI is not installed, the address is taken, or the key is not set.
        UserError: the bundle, or the reranker, cannot be opened.
    """
    try:
        from embfit.server.lifecycle import listen, make_server
        from embfit.server.lifecycle import run as answer
        from embfit.server.service import Service
        from embfit.server.workers import Workers
    except ModuleNotFoundError as error:
        if str(error.name).split(".")[0] not in PACKAGES:
            raise
        raise ConfigError("task=serve needs FastAPI; install it with: pip install 'embfit[serve]'") from error
    listening = listen(server)
    try:
        if server.reachable and server.api_key() is None:
            log.warning(
                "server.host=%s is reached from other machines, and no key is asked for; set server.api_key_env",
                server.host,
            )
        if server.workers > 1:
            bundle.versions.number(server.serve)
            with run.stage("serve"):
                Workers(server, bundle.versions, devices.all, store, listening, run.dir).run()
        else:
            with run.stage("open bundle"):
                service = Service(server, bundle.versions, devices.first, store)
            with run.stage("serve"):
                answer(service, make_server(service, listening), listening)
        log.info("stopped")
    finally:
        listening.close()
