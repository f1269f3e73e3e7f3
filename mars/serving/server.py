"""Serving a checkpoint until the process is told to end."""

from __future__ import annotations

import signal
import socket
from contextlib import closing
from pathlib import Path

from mars.data.tokenizer import load_tokenizer
from mars.errors import UserError
from mars.serving.desk import Desk
from mars.serving.engine_process import ProcessLink, Settings

PACKAGES = "starlette uvicorn prometheus-client httptools uvloop"
BACKLOG = 2048
LOOPBACK = ("127.0.0.1", "::1", "localhost")


def serve(
    settings: Settings,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    name: str | None = None,
    api_key: str | None = None,
    max_waiting: int = 256,
) -> None:
    """Answer requests until SIGTERM or SIGINT, finish those that were taken, and return.

    Args:
        settings: what is served.
        host, port: where to listen; port 0 is any that is free.
        name: of the model for the clients; default that of its folder.
        api_key: clients must bring it.
        max_waiting: requests that may wait for a slot.

    Raises:
        UserError: packages are missing, the address is taken, or a setting cannot be served.
        SystemExit: the engine has failed.
    """
    try:
        import uvicorn

        from mars.serving.app import build_app
        from mars.serving.metrics import Metrics
        from mars.serving.service import Service
    except ModuleNotFoundError as error:
        raise UserError(
            f"{error.name} is missing, which `mars serve` needs: pip install {PACKAGES}."
        ) from error

    settings.check()
    name = name or Path(settings.checkpoint).resolve().name
    tokenizers = load_tokenizer(settings.checkpoint), load_tokenizer(settings.checkpoint)
    with bind(host, port) as bound, closing(ProcessLink(settings)) as link:
        desk = Desk(link, max_waiting)
        app = build_app(Service(desk, tokenizers, name, Metrics(), api_key))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False))

        def end(*received: object) -> None:
            server.should_exit = True

        desk.on_failure = end
        # uvicorn has handlers of its own while it runs; then it raises the signal once more.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, end)
        bound.listen(BACKLOG)
        address = f"{f'[{host}]' if ':' in host else host}:{bound.getsockname()[1]}"
        print(f"{name} is served at http://{address}/v1", flush=True)
        if host not in LOOPBACK and api_key is None:
            print("Whoever reaches this address can use it: --api-key sets a key.", flush=True)
        server.run([bound])
    if desk.failed:
        raise SystemExit(1)


def bind(host: str, port: int) -> socket.socket:
    """A socket on which nobody listens yet.

    Raises:
        UserError: there is no such address here, or it is taken.
    """
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        raise UserError(
            f"Nothing can listen on {host}, port {port} ({error.strerror}): "
            "choose another with --host or --port."
        ) from error
    return bound
