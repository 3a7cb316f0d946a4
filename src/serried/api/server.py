"""Runs the application on a port of this machine, and writes its log."""

from __future__ import annotations

import ipaddress
import logging.handlers
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import structlog
import uvicorn
from starlette.types import ASGIApp

from serried.errors import BadInput

__all__ = ["Server", "listen", "log_in"]

_BACKLOG = 512
_GOODBYE_S = 3
_LOG_BYTES = 50_000_000


def listen(host: str, port: int, *, everywhere: bool = False) -> socket.socket:
    """A socket that listens; port 0 = any free one. Raises BadInput when the port is taken, or when others than this
    machine could reach it and nobody said so (`everywhere`)."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError, OverflowError) as error:
        raise BadInput(field="--host", value=host, expected="a name or address of this machine",
                       remedy=f"{error}. Leave it out for 127.0.0.1.") from None
    if not everywhere and not ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback:
        raise BadInput(field="--host", value=host, expected="an address of loopback",
                       remedy="The token travels in the clear. Put TLS before it, and say --expose if others "
                              "are to reach it all the same.")
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise BadInput(field="--port", value=port, expected=f"a port of {host} that is free",
                       remedy=f"{error.strerror}. Name another one, or 0 for any.") from None
    return listener


class Server(uvicorn.Server):
    """uvicorn on a socket that is open already. Whoever runs it minds the signals."""

    def __init__(self, app: ASGIApp, listener: socket.socket) -> None:
        self.listener = listener
        super().__init__(uvicorn.Config(app, access_log=False, log_config=None, lifespan="off", server_header=False,
                                        ws="none", timeout_graceful_shutdown=_GOODBYE_S))

    @property
    def url(self) -> str:
        """Where it can be reached from here."""
        host, port = self.listener.getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def stop(self) -> None:
        """Answer what was asked and end; asked again, do not wait for the answers. Any thread may call it."""
        self.force_exit = self.should_exit
        self.should_exit = True

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone."""
        yield

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until told to stop."""
        super().run(sockets or [self.listener])


@contextmanager
def log_in(path: Path) -> Iterator[None]:
    """One JSON object a line, for the while: structlog's own, and what libraries say."""
    shared: list[Any] = [structlog.stdlib.add_log_level, structlog.stdlib.add_logger_name,
                         structlog.processors.TimeStamper(fmt="iso", utc=True)]
    handler = logging.handlers.RotatingFileHandler(path, maxBytes=_LOG_BYTES, backupCount=3, encoding="utf-8")
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=[
        structlog.stdlib.ProcessorFormatter.remove_processors_meta, structlog.processors.format_exc_info,
        structlog.processors.JSONRenderer()]))
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    for chatty in ("alembic", "httpx"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    structlog.configure(processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
                        logger_factory=structlog.stdlib.LoggerFactory())
    try:
        yield
    finally:
        structlog.reset_defaults()
        root.handlers[:], root.level = before, level
        handler.close()
