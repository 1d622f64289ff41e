"""Starting and stopping: the command line, one line of JSON when it serves, a clean end on SIGTERM or SIGINT."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from aiohttp import web

from messaging.simulator.control import Control
from messaging.simulator.dialects import DIALECTS
from messaging.simulator.dialects.base import Dialect, Purpose
from messaging.simulator.engine import Engine
from messaging.simulator.faults import BadRule, Faults
from messaging.simulator.ledger import Ledger
from messaging.simulator.ledger_file import LedgerUnusable
from messaging.simulator.phones import BadWebhook, Settings, is_loopback, parse_settings
from messaging.simulator.webhooks import Webhooks

DEFAULT_PORT = 8030
MAX_BODY_BYTES = 160 * 1024 * 1024
BACKLOG = 2048
CONTROL_TOKEN = "SIMULATOR_CONTROL_TOKEN"  # noqa: S105 - the name of a variable
WEBHOOK = "SIMULATOR_WEBHOOK"
"""Variable with the webhook to start with, as the control API takes it: survives a restart, stays out of argv."""


class CannotStart(Exception):  # noqa: N818 - reads as a fact
    """The simulator cannot start, with words that say why."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options, for ``python -m messaging.simulator`` and for ``manage.py simulator`` alike."""
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help="0 for a free one (default: %(default)s)")
    parser.add_argument("--port-file", type=Path, help="write the port here once it serves")
    parser.add_argument("--ledger", type=Path, help="keep the ledger in this JSON lines file, and go on from it")
    parser.add_argument("--faults", type=Path, help="a JSON file with fault rules to start with")
    parser.add_argument("--seed", type=int, default=0, help="makes chance repeatable (default: %(default)s)")
    parser.add_argument("--token-prefix", default="", help="only devices whose token starts like this exist")
    parser.add_argument("--allow-remote", action="store_true", help="allow an address other machines can reach")


def main(arguments: list[str] | None = None) -> int:
    """Run until told to stop; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m messaging.simulator",
        description="A pretend messaging gateway that misbehaves on request and remembers what reached each phone.",
        epilog=f"The control API's token is taken from {CONTROL_TOKEN}; without, one is made and shown at the start. "
        f"{WEBHOOK} holds the webhook to start with, as JSON.",
    )
    add_arguments(parser)
    return run(parser.parse_args(arguments))


def run(options: argparse.Namespace) -> int:
    """Run with parsed options until told to stop; the exit status."""
    try:
        asyncio.run(_serve(options))
    except CannotStart as problem:
        print(f"simulator: {problem}", file=sys.stderr)
        return 2
    return 0


async def _serve(options: argparse.Namespace) -> None:
    if not options.allow_remote and not is_loopback(options.host):
        raise CannotStart(f"{options.host} can be reached from other machines; use 127.0.0.1, or add --allow-remote")
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    faults = Faults(seed=options.seed)
    if options.faults is not None:
        _load_faults(faults, options.faults)
    ledger = _open_ledger(options.ledger)
    webhooks = Webhooks(seed=options.seed)
    webhooks.configure(_webhook(allow_remote=options.allow_remote))
    engine = Engine(ledger=ledger, faults=faults, outbox=webhooks, token_prefix=options.token_prefix)
    given = os.environ.get(CONTROL_TOKEN, "")
    control = Control(
        engine=engine,
        webhooks=webhooks,
        token=given or secrets.token_urlsafe(24),
        allow_remote=options.allow_remote,
    )
    runner = web.AppRunner(
        build_app(engine, control),
        handler_cancellation=True,  # a client that goes away ends its request, here and in the ledger
        access_log=None,
        shutdown_timeout=2.0,
        keepalive_timeout=75,
    )
    await runner.setup()
    try:
        listening = _listen(options.host, options.port)
        await web.SockSite(runner, listening, backlog=BACKLOG).start()
        webhooks.start()
        _announce(options, listening.getsockname()[1], shown_token=None if given else control.token)
        await stop.wait()
    finally:
        engine.stop()
        await webhooks.stop()
        await runner.cleanup()
        ledger.close_file()
        if options.port_file is not None:
            options.port_file.unlink(missing_ok=True)


def build_app(engine: Engine, control: Control) -> web.Application:
    """The web application: every dialect's addresses, and the control API."""
    app = web.Application(client_max_size=MAX_BODY_BYTES)
    for dialect in DIALECTS:
        for route in dialect.routes():
            app.router.add_route(route.method, route.path, _handler(engine, dialect, route.purpose))
    app.add_routes(control.routes())
    app.add_routes(control.sessions.routes())
    return app


def _handler(
    engine: Engine, dialect: Dialect, purpose: Purpose
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handle(request: web.Request) -> web.StreamResponse:
        return await engine.handle(request, dialect, purpose)

    return handle


def _load_faults(faults: Faults, path: Path) -> None:
    try:
        faults.add(json.loads(path.read_text()))
    except OSError as error:
        raise CannotStart(f"cannot read {path}: {error.strerror}") from None
    except BadRule as problem:
        raise CannotStart(f"{path}: {problem}") from None
    except ValueError:
        raise CannotStart(f"{path} is not JSON") from None


def _webhook(*, allow_remote: bool) -> Settings | None:
    """The webhook of the environment, if there is one."""
    given = os.environ.get(WEBHOOK, "")
    if not given:
        return None
    try:
        return parse_settings(json.loads(given), allow_remote=allow_remote)
    except BadWebhook as problem:
        raise CannotStart(f"{WEBHOOK}: {problem}") from None
    except ValueError:
        raise CannotStart(f"{WEBHOOK} is not JSON") from None


def _open_ledger(path: Path | None) -> Ledger:
    ledger = Ledger()
    if path is not None:
        try:
            ledger.open_file(path)
        except LedgerUnusable as problem:
            raise CannotStart(str(problem)) from None
    return ledger


def _listen(host: str, port: int) -> socket.socket:
    """A bound socket: its port is known before anything is announced."""
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, proto)
    except (OSError, OverflowError) as error:
        raise CannotStart(f"cannot use {host}:{port}: {error}") from None
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except (OSError, OverflowError) as error:
        listening.close()
        raise CannotStart(f"cannot listen on {host}:{port}: {error}") from None
    listening.setblocking(False)
    return listening


def _announce(options: argparse.Namespace, port: int, *, shown_token: str | None) -> None:
    if options.port_file is not None:
        half = options.port_file.with_name(options.port_file.name + ".part")
        half.write_text(f"{port}\n")
        half.replace(options.port_file)  # whole or not there: nobody reads half a port
    line: dict[str, Any] = {"ready": True, "host": options.host, "port": port, "pid": os.getpid()}
    if shown_token is not None:
        line["control_token"] = shown_token
    print(json.dumps(line), flush=True)
