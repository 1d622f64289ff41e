"""Neonize itself: imported only where sessions are opened, quiet, and never waited for without a deadline.

Importing it loads 19 MB of Go into the process, sets up logging and starts a thread, so it happens in session hosts and
in the children that pair, at their first :func:`load`, and nowhere else.
"""

from __future__ import annotations

import importlib
import logging
import os
import re
import sys
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, TypeVar

T = TypeVar("T")

BOT_TAG = "NEONIZE_BOT_TAG"
_NUMBER = re.compile(r"\d{6,}")
_loading = threading.Lock()


class CannotLoad(Exception):  # noqa: N818 - reads as a fact
    """The library is not usable in this process; the text says why and what to do."""


class Late(Exception):  # noqa: N818 - reads as a fact
    """A native call has not come back in time; its thread is still inside."""


def load() -> SimpleNamespace:
    """The parts of the library that are used here. Raises CannotLoad."""
    with _loading:
        return _load()


@cache
def _load() -> SimpleNamespace:
    if environment_at_start().get(BOT_TAG) != "off":
        raise CannotLoad(
            f"Start this process with {BOT_TAG}=off in its environment: without it every message says it is a bot's."
        )
    root = logging.getLogger()
    before = (list(root.handlers), root.level)
    _without_libmagic()
    try:
        from neonize import client, events  # noqa: PLC0415 - see above: heavy, native, and only here
        from neonize._binder import ProxySettings  # noqa: PLC0415
        from neonize.proto import Neonize_pb2  # noqa: PLC0415
        from neonize.proto.waCompanionReg import WAWebProtobufsCompanionReg_pb2 as companion  # noqa: PLC0415
        from neonize.proto.waE2E import WAWebProtobufsE2E_pb2 as e2e  # noqa: PLC0415
        from neonize.utils.enum import MediaType  # noqa: PLC0415
    except ImportError:
        raise CannotLoad("The package neonize is not installed on this host.") from None
    except (OSError, RuntimeError):
        raise CannotLoad("The native part of neonize does not load on this host.") from None
    finally:
        root.handlers[:], root.level = before
    _quiet()
    return SimpleNamespace(
        NewClient=client.NewClient,
        ProxySettings=ProxySettings,
        events=events,
        proto=Neonize_pb2,
        e2e=e2e,
        MediaType=MediaType,
        DeviceProps=companion.DeviceProps,
    )


@cache
def environment_at_start() -> dict[str, str]:
    """The environment this process began with: Go reads that one, whatever was put into ``os.environ`` since."""
    try:
        raw = Path("/proc/self/environ").read_bytes()
    except OSError:
        return dict(os.environ)
    pairs = (entry.partition(b"=") for entry in raw.split(b"\0") if entry)
    return {name.decode(errors="replace"): value.decode(errors="replace") for name, _, value in pairs}


def _without_libmagic() -> None:
    """Let the library be imported on hosts without libmagic, which it needs for guesses that are never asked for here:
    every attachment comes with its type. python-magic is a mere binding and cannot be imported without it."""
    try:
        importlib.import_module("magic")
    except ImportError:
        sys.modules["magic"] = ModuleType("magic")


class _Masked(logging.Filter):
    """Blanks out numbers of people; lets through what a person would act upon."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = _NUMBER.sub("…", record.getMessage()), ()
        record.exc_info = None
        return True


def _quiet() -> None:
    """Only warnings of the library, with people's numbers blanked out; nothing of its chatter about media tools."""
    for name in ("whatsmeow", "Whatsmeow", "neonize"):
        logger = logging.getLogger(name)
        logger.setLevel(logging.ERROR)
        logger.propagate = False
        handler = _ToRoot()
        handler.addFilter(_Masked())
        logger.addHandler(handler)


class _ToRoot(logging.Handler):
    """Hands records on to whatever the root logger does with them: a filter of a logger never sees its children's."""

    def emit(self, record: logging.LogRecord) -> None:
        for handler in logging.getLogger().handlers:
            if record.levelno >= handler.level:
                handler.handle(record)


def within(
    seconds: float,
    call: Callable[[], T],
    *,
    name: str,
    late: Callable[[T | None], None] | None = None,
) -> T:
    """``call()`` on a thread of its own. Raises what it raises, or Late if it is not back within ``seconds``.

    Any native call may hang on a lock that another one holds (asking whether a client is connected waits while it
    dials, up to a minute), so none is made on a thread that somebody needs. ``late`` hears of one that came back after
    all, with its result, or None if it failed.
    """
    done = threading.Event()
    lock = threading.Lock()
    result: list[T] = []
    error: list[BaseException] = []
    given_up = False

    def run() -> None:
        try:
            result.append(call())
        except BaseException as problem:  # noqa: BLE001 - raised again in the thread that waits
            error.append(problem)
        with lock:
            done.set()
            tell = given_up
        if tell and late is not None:
            late(result[0] if result else None)

    threading.Thread(target=run, name=name, daemon=True).start()
    done.wait(max(0.0, seconds))
    with lock:
        given_up = not done.is_set()
    if given_up:
        raise Late(name)
    if error:
        raise error[0]
    return result[0]


def text_of(problem: BaseException) -> str:
    """The text of the library's exception; it is all that one carries."""
    return str(problem) or type(problem).__name__


def proxy_of(library: Any, address: str) -> Any:
    """The library's proxy settings for an address; None without one."""
    return library.ProxySettings(proxy_address=address) if address else None
