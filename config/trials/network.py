"""Hosts of a network of their own: namespaces, a bridge between them, and silence where it is wanted.

A cut is made the way a dead switch makes it: packets vanish, nobody is told. Each of the two ends is given a wrong
hardware address for the other (ip-neighbour(8)), so that its packets reach nobody; connections that stand stay as they
are, half open, until their own patience ends. That needs no packet filter in the kernel.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from config.stack.children import Child, Children
from config.stack.errors import StackError
from config.stack.processes import Ladder

NETWORK = "10.77.0"
BRIDGE = "flotilla"
NOBODY = "02:00:00:00:00:99"
"""A hardware address that no host has: the bridge passes its packets to everybody, and everybody ignores them."""
READY_SECONDS = 30.0
_PROGRAMS = ("ip", "unshare", "nsenter", "hostname")
T = TypeVar("T")
_CLONE_NEWUTS, _CLONE_NEWNET = 0x04000000, 0x40000000


def missing() -> str:
    """Why this machine cannot have hosts of its own; empty where it can. Tries it in a process that ends at once."""
    if os.geteuid() != 0:
        return "making network namespaces needs root"
    if without := [name for name in _PROGRAMS if shutil.which(name) is None]:
        return f"not installed here: {', '.join(without)} (Debian: iproute2, util-linux, hostname)"
    script = "ip link add fl0 type veth peer name fl1 && ip link add fl2 type bridge && ip link set fl0 master fl2"
    answer = subprocess.run(
        ["unshare", "--net", "--uts", "sh", "-c", script], capture_output=True, text=True, check=False
    )
    return f"this kernel refuses: {answer.stderr.strip()[:200]}" if answer.returncode else ""


def enter_new_network() -> None:
    """Move this process, and all that it starts from now on, into a network with nothing but a bridge.

    To be called before any thread runs. Raises StackError.
    """
    libc = ctypes.CDLL(None, use_errno=True)  # os.unshare came with Python 3.12
    if libc.unshare(_CLONE_NEWNET | _CLONE_NEWUTS):
        raise StackError(f"A network of its own cannot be made: {os.strerror(ctypes.get_errno())}.")
    _run("hostname", "hub")
    _run("ip", "link", "set", "lo", "up")
    _run("ip", "link", "add", BRIDGE, "type", "bridge")
    _run("ip", "address", "add", f"{address(1)}/24", "dev", BRIDGE)
    _run("ip", "link", "set", BRIDGE, "up")


def address(number: int) -> str:
    """Of host ``number``; 1 is where the network was made."""
    return f"{NETWORK}.{number}"


@dataclass(frozen=True, slots=True)
class Host:
    """One host: ``holder`` is the process that keeps its namespaces; the hub has none."""

    name: str
    address: str
    holder: Child | None = field(default=None, repr=False)

    def argv(self, argv: Sequence[str]) -> list[str]:
        """A command line that runs ``argv`` on this host, in the same process."""
        if self.holder is None:
            return list(argv)
        spaces = f"/proc/{self.holder.pid}/ns"
        return ["nsenter", f"--net={spaces}/net", f"--uts={spaces}/uts", "--", *argv]

    def inside(self, work: Callable[[], T]) -> T:
        """What ``work`` returns when it is done in this host's network, by a thread that ends with it."""
        if self.holder is None:
            return work()
        with ThreadPoolExecutor(1, initializer=_enter, initargs=(self.holder.pid,)) as thread:
            return thread.submit(work).result()

    def connections(self, others: Collection[str]) -> int:
        """How many TCP connections stand from here to these addresses, whether anybody is there or not
        (proc(5), net/tcp: addresses are hexadecimal in the machine's order, 01 is ESTABLISHED)."""
        if self.holder is None:
            return 0
        wanted = {f"{int.from_bytes(socket.inet_aton(other), sys.byteorder):08X}" for other in others}
        rows = Path(f"/proc/{self.holder.pid}/net/tcp").read_text(encoding="ascii").splitlines()[1:]
        return sum(row.split()[2].partition(":")[0] in wanted and row.split()[3] == "01" for row in rows)

    @property
    def interface(self) -> str:
        """By which it reaches the others."""
        return BRIDGE if self.holder is None else "eth0"


class Network:
    """The hosts around the hub, which is where we are. Used from one thread."""

    def __init__(self, *, children: Children, logs: Path) -> None:
        self.hub = Host("hub", address(1))
        self._children = children
        self._logs = logs
        self._number = 1

    def add(self, name: str) -> Host:
        """A new host, wired to the others. Raises StackError."""
        self._number += 1
        holder = self._children.start(
            name=f"{name}-holder",
            argv=["unshare", "--net", "--uts", "sleep", "2147483647"],
            ladder=Ladder(steps=((signal.SIGTERM, 5.0),)),
            env={"PATH": os.environ.get("PATH", os.defpath)},
            cwd=Path("/"),
            log=self._logs / f"{name}-holder.log",
        )
        host = Host(name, address(self._number), holder)
        self._wait_for_namespaces(host, holder)
        _run("ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", str(holder.pid))
        _run("ip", "link", "set", name, "master", BRIDGE, "up")
        _run(*host.argv(["hostname", name]))
        _run(*host.argv(["ip", "link", "set", "lo", "up"]))
        _run(*host.argv(["ip", "address", "add", f"{host.address}/24", "dev", "eth0"]))
        _run(*host.argv(["ip", "link", "set", "eth0", "up"]))
        return host

    def cut(self, one: Host, other: Host) -> None:
        """From now on neither hears the other, and nobody tells them."""
        for here, there in ((one, other), (other, one)):
            wrong = ["ip", "neighbour", "replace", there.address, "lladdr", NOBODY, "dev", here.interface]
            _run(*here.argv([*wrong, "nud", "permanent"]))

    def mend(self, one: Host, other: Host) -> None:
        """They hear each other again."""
        for here, there in ((one, other), (other, one)):
            _run(*here.argv(["ip", "neighbour", "delete", there.address, "dev", here.interface]))

    def unplug(self, host: Host) -> None:
        """Pull its cable: it reaches nobody, and nobody it."""
        _run("ip", "link", "set", host.name, "down")

    def plug(self, host: Host) -> None:
        """Put the cable back."""
        _run("ip", "link", "set", host.name, "up")

    def remove(self, host: Host) -> None:
        """The host is no more; its programs are ended by whoever started them."""
        if host.holder is not None:
            self._children.stop(host.holder)

    def _wait_for_namespaces(self, host: Host, holder: Child) -> None:
        """Until the holder has become ``sleep``, which it does once it is in its namespaces."""
        ends = time.monotonic() + READY_SECONDS
        while Path(f"/proc/{holder.pid}/comm").read_text(encoding="ascii").strip() != "sleep":
            if holder.exit_code() is not None or time.monotonic() > ends:
                raise StackError(f"Host {host.name} could not be made: {holder.last_words()}")
            time.sleep(0.02)


def _enter(pid: int) -> None:
    """Move the thread that calls into the network of a process (setns(2)). Raises StackError."""
    with Path(f"/proc/{pid}/ns/net").open("rb") as space:
        if ctypes.CDLL(None, use_errno=True).setns(space.fileno(), _CLONE_NEWNET):
            raise StackError(f"The network of process {pid} cannot be entered: {os.strerror(ctypes.get_errno())}.")


def _run(*argv: str) -> None:
    answer = subprocess.run(argv, capture_output=True, text=True, check=False)
    if answer.returncode:
        raise StackError(f"{' '.join(argv)}: {answer.stderr.strip()[:300]}")
