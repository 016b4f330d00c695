"""Runs the server: on a socket of this machine alone, until the process is told to end, without a word of its own."""

import logging
import os
import secrets
import socket
from collections.abc import Callable, Sequence

import uvicorn

from jaxsae.errors import InputError, require
from jaxsae.serve.app import Live, application
from jaxsae.serve.asked import Limits
from jaxsae.serve.worker import Worker

HOST = "127.0.0.1"
GRACE = 5.0
"""Seconds to wait for what is being computed when the process is to end: a thread inside JAX is best let finish."""


def listen(port: int) -> socket.socket:
    """A socket on which this machine alone can be reached; of port 0, a free one.

    Raises:
      InputError: the port cannot be had.
    """
    require(0 <= port <= 65535, f"port must be in 0..65535, got {port}")
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        # a port that a server has just left can be taken at once; one on which another listens cannot
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise InputError(
            f"port must be one that can be listened on, got {port}: {reason}; give another, or 0 for any free one"
        ) from None
    return listener


def serve(
    listener: socket.socket,
    page: str,
    live: Live,
    *,
    scripts: Sequence[str],
    limits: Limits | None = None,
    on_ready: Callable[[str], None] = lambda address: None,
    on_error: Callable[[BaseException], None] = lambda error: None,
    on_server: Callable[[uvicorn.Server], None] = lambda server: None,
) -> None:
    """Serve the page until a signal ends the process, which is raised again as the process takes it.

    Args:
      listener: of `listen`; closed at the end.
      page: see `application`, as for `live`, `scripts`, `limits` and `on_error`.
      on_ready: called with the address to open, which has the token in it.
      on_server: called with the server before it runs, for who ends it without a signal: by its `should_exit`.
    """
    port = listener.getsockname()[1]
    token = secrets.token_urlsafe(32)
    bounds = limits or Limits()
    worker = Worker(bounds.waiting)
    app = application(
        page, live, worker, scripts=scripts, port=port, token=token, limits=bounds, on_error=on_error
    )  # fmt: skip
    # a client that goes away in the middle is no news for a terminal
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    config = uvicorn.Config(
        app,
        loop="asyncio",
        http="h11",
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        log_level=logging.CRITICAL,
        access_log=False,  # addresses have the token in them
        server_header=False,
        proxy_headers=False,
        limit_concurrency=128,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    on_server(server)
    try:
        on_ready(f"http://{HOST}:{port}/?token={token}")
        server.run(sockets=[listener])
    finally:
        listener.close()
        worker.stop(GRACE)
