"""``stack up | run -- COMMAND | status | stop | clean``: the local stack from the command line."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence

from config.stack import processes, state
from config.stack.addresses import external
from config.stack.children import Children
from config.stack.errors import StackError
from config.stack.full import call, full_stack
from config.stack.interrupts import Interrupted, Interrupts
from config.stack.local import end, erase, servers_running
from config.stack.places import local_root


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The sub-commands, for our own parser and for a management command's."""
    commands = parser.add_subparsers(dest="action", required=True, metavar="up | run | status | stop | clean")
    up = commands.add_parser("up", help="servers, migrations and every program, until Ctrl-C")
    up.add_argument("--port", type=int, help="port of the web application (8000 or the next free one)")
    up.add_argument("--flower-port", type=int, help="port of Flower (5555 or the next free one)")
    up.add_argument("--simulator-port", type=int, help="port of the gateway simulator (8900 or the next free one)")
    run = commands.add_parser("run", help="only the servers, around a command: run -- COMMAND ARGUMENTS")
    run.add_argument("argv", nargs="+", metavar="COMMAND")
    commands.add_parser("status", help="what runs, and where; exit 1 when nothing does")
    commands.add_parser("stop", help="stop the stack that runs, and what an unclean stop left")
    commands.add_parser("clean", help="stop it and remove everything it wrote, database included")


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def run(options: argparse.Namespace) -> int:
    """Do what the parsed arguments say; the exit code. One line on standard error for what cannot be done."""
    try:
        if options.action == "up":
            return _up(options)
        if options.action == "run":
            return _run(options.argv)
        if options.action == "status":
            return _status()
        if options.action == "stop":
            say("The local stack is stopped." if end() else "Nothing was running.")
        else:
            erase()
    except StackError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _up(options: argparse.Namespace) -> int:
    with (
        Interrupts().installed() as interrupts,
        contextlib.suppress(Interrupted),  # the ordinary way to end it
        full_stack(
            interrupts=interrupts,
            say=say,
            web_port=options.port,
            flower_port=options.flower_port,
            simulator_port=options.simulator_port,
            shards=_shards(),
        ) as full,
    ):
        say(f"Ready: {full.urls['web']} and Flower on {full.urls['flower']}, log in as admin. Ctrl-C ends it.")
        say(f"The passwords are in {full.stack.root / 'secrets.json'}, the logs in {full.stack.logs}.")
        full.wait()
    return 0


def _shards() -> int:
    value = os.environ.get("FLOTILLA_SHARDS", "") or "4"
    if not (value.isascii() and value.isdigit() and int(value) > 0):
        raise StackError(f"FLOTILLA_SHARDS must be a number from 1 on, not “{value}”.")
    return int(value)


def _run(argv: Sequence[str]) -> int:
    with Interrupts().installed() as interrupts:
        children = Children()
        try:
            with servers_running(children=children) as environment:
                try:
                    return call(argv, children=children, env=environment, meanwhile=interrupts.check)
                finally:
                    interrupts.begin_ending()
                    children.close(hurried=interrupts.hurried)
        except Interrupted as interrupted:
            return 128 + interrupted.number


def _status() -> int:
    root = local_root()
    if external():
        say("DATABASE_URL and REDIS_URL are set: those servers are used, and none is started here.")
    found = state.read(root)
    if found is None or not processes.is_alive(found.owner):
        say(f"Nothing runs in {root}.")
        return 1
    say(f"{'owner':<16} {found.owner.pid:>8}  {'running' if found.running else 'starting or stopping'}")
    for name, who in found.processes.items():
        what = "running" if processes.is_alive(who) else "dead"
        say(f"{name:<16} {who.pid:>8}  {what}  {found.urls.get(name, '')}".rstrip())
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m config.stack", description=__doc__)
    add_arguments(parser)
    return run(parser.parse_args(argv))
