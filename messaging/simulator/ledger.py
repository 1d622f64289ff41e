"""The ledger: every request, what was answered, and what reached each phone.

In memory it is a table of columns with shared strings, so that a million requests fit. On disk it is JSON lines, each
handed to the kernel *before* the answer leaves: what a client was told is always in the file. A request answered at
once has one line; one that waits has a first line when it starts waiting and later lines ``{"n": …}`` with what
changed. :meth:`Ledger.open_file` reads such a file back, so a restarted simulator still knows every id it accepted.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import select
import time
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from messaging.simulator.ledger_file import LedgerFile

PEER_CLOSED = getattr(select, "POLLRDHUP", 0)  # elsewhere than on Linux a full hang-up is all that can be seen
NOTHING, DELIVERED, REPEATED = 0, 1, 2
NO_MESSAGE = -1
MAX_EXAMPLES = 100
PHONE_BITS = 32  # one integer for (message, phone) is a third of the size of a tuple


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request as its dialect read it. ``message`` is the sender's number for it, -1 if it gave none."""

    device: str
    phone: str
    reference: str | None
    message: int
    attempt: int
    at: float
    monotonic: float
    sender: str = ""
    type: str = "text"
    media_bytes: int = 0


@dataclass(slots=True)
class _Open:
    """A request that is in flight."""

    device: str
    written_fate: int | None = None


@dataclass(frozen=True, slots=True)
class Ticket:
    """A request's number, and the ledger's generation: after a reset, tickets from before it change nothing."""

    n: int
    generation: int


class _Names:
    """Strings stored once, known by number."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}
        self.names: list[str] = []

    def number(self, name: str) -> int:
        known = self.numbers.get(name)
        if known is None:
            known = self.numbers[name] = len(self.names)
            self.names.append(name)
        return known


class Ledger:
    """All requests since the start or the last reset. Used by one thread only: the event loop's."""

    def __init__(self) -> None:
        self._file: LedgerFile | None = None
        self.generation = 0
        self._clear()

    def _clear(self) -> None:
        self._at, self._monotonic, self._end = array("d"), array("d"), array("d")
        self._device, self._phone = array("I"), array("I")
        self._message, self._attempt = array("q"), array("i")
        self._answer, self._fault, self._status = array("I"), array("I"), array("h")
        self._fate = bytearray()
        self._reference: list[str | None] = []
        self._media: dict[int, tuple[str, int]] = {}
        self._devices, self._phones, self._words = _Names(), _Names(), _Names()
        self._by_device: dict[str, array[int]] = {}
        self._accepted: dict[str, set[str]] = {}
        self._reached: set[int] = set()
        self._twice: Counter[int] = Counter()
        self._open: dict[int, _Open] = {}
        self._flying: dict[str, dict[int, asyncio.Transport | None]] = {}
        self.max_in_flight: dict[str, int] = {}
        self.answers: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.deliveries = 0
        self.duplicate_requests = 0
        self.incomplete_requests = 0

    def __len__(self) -> int:
        return len(self._at)

    # -- one request -----------------------------------------------------------------------------------------------

    def open(self, arrival: Arrival, *, faults: str, transport: asyncio.Transport | None) -> Ticket:
        """Enter a request and put it in flight until it is closed or its client's connection is."""
        n = self._append(arrival, faults)
        self._open[n] = _Open(device=arrival.device)
        flying = self._flying.setdefault(arrival.device, {})
        most = self.max_in_flight.get(arrival.device, 0)
        if flying and len(flying) >= most:
            self._land_the_gone(flying)
        flying[n] = transport
        self.max_in_flight[arrival.device] = max(most, len(flying))
        return Ticket(n, self.generation)

    def _append(self, arrival: Arrival, faults: str) -> int:
        n = len(self._at)
        self._at.append(arrival.at)
        self._monotonic.append(arrival.monotonic)
        self._end.append(math.nan)
        self._device.append(self._devices.number(arrival.device))
        self._phone.append(self._phones.number(arrival.phone))
        self._message.append(arrival.message)
        self._attempt.append(arrival.attempt)
        self._answer.append(self._words.number(""))
        self._fault.append(self._words.number(faults))
        self._status.append(0)
        self._fate.append(NOTHING)
        self._reference.append(arrival.reference)
        if arrival.type != "text":
            self._media[n] = (arrival.type, arrival.media_bytes)
        self._by_device.setdefault(arrival.device, array("I")).append(n)
        if faults:
            self.faults.update(faults.split("+"))
        return n

    def _land_the_gone(self, flying: dict[int, asyncio.Transport | None]) -> None:
        """End flights whose client has closed its socket, though the event loop has not come round to say so.

        A client that gives up and tries again at once would otherwise be seen with two requests in flight, in whatever
        order the loop happens to see its two sockets.
        """
        poll = select.poll()
        flights: dict[int, int] = {}
        for n, transport in list(flying.items()):
            if transport is None or transport.is_closing():
                self._land(n, flying)
            else:
                descriptor = transport.get_extra_info("socket").fileno()
                poll.register(descriptor, PEER_CLOSED)
                flights[descriptor] = n
        for descriptor, _ in poll.poll(0) if flights else ():
            self._land(flights[descriptor], flying)

    def _land(self, n: int, flying: dict[int, asyncio.Transport | None]) -> None:
        flying.pop(n, None)
        if math.isnan(self._end[n]):
            self._end[n] = time.monotonic()

    def accept(self, ticket: Ticket, *, dedups: bool) -> tuple[str, bool]:
        """The phone gets this message, unless its id was accepted from this device before.

        Returns the external id and whether it was delivered now.
        """
        if ticket.generation != self.generation:
            return "sim-forgotten", False
        n = ticket.n
        reference = self._reference[n] if dedups else None
        if reference is None:
            self._deliver(n)
            return self._own_id(n), True
        known = self._accepted.setdefault(self._name(n), set())
        if reference in known:
            self._fate[n] = REPEATED
            self.duplicate_requests += 1
        else:
            known.add(reference)
            self._deliver(n)
        return _external_id(self._name(n), reference), self._fate[n] == DELIVERED

    def find(self, *, device: str, reference: str) -> str | None:
        """The external id under which this device's message of that id was accepted; None if it never was."""
        if reference in self._accepted.get(device, ()):
            return _external_id(device, reference)
        for n in self._by_device.get(device, ()):  # a gateway that can be searched and drops no repeats
            if self._fate[n] == DELIVERED and self._reference[n] == reference:
                return self._own_id(n)
        return None

    def _own_id(self, n: int) -> str:
        return _external_id(self._name(n), str(n), str(self._at[n]))

    def _deliver(self, n: int) -> None:
        self._fate[n] = DELIVERED
        self.deliveries += 1
        if self._message[n] != NO_MESSAGE:
            key = self._message[n] << PHONE_BITS | self._phone[n]
            if key in self._reached:
                self._twice[key] += 1
            self._reached.add(key)

    def wait(self, ticket: Ticket) -> None:
        """Write what is known of a request that will not be answered at once, if that is news."""
        n = ticket.n
        if ticket.generation == self.generation and n in self._open and self._open[n].written_fate != self._fate[n]:
            self._write(n)

    def close(self, ticket: Ticket, *, answer: str, status: int) -> None:
        """The request is over: answered (call this before the last byte leaves) or given up by its client.

        Only the first call counts.
        """
        n = ticket.n
        if ticket.generation != self.generation or n not in self._open:
            return
        self._answer[n] = self._words.number(answer)
        self._status[n] = status
        self.answers[answer] += 1
        device = self._open[n].device
        self._land(n, self._flying[device])
        if not self._flying[device]:
            del self._flying[device]
        self._write(n)
        del self._open[n]

    # -- reading ---------------------------------------------------------------------------------------------------

    def _name(self, n: int) -> str:
        return self._devices.names[self._device[n]]

    def entry(self, n: int) -> dict[str, Any]:
        """One request as file and control API show it. ``end`` and ``answer`` are null while it is in flight; ``type``
        and ``media_bytes`` are there if it is more than text."""
        end, message = self._end[n], self._message[n]
        return {
            "n": n,
            "at": self._at[n],
            "monotonic": self._monotonic[n],
            "device": self._name(n),
            "phone": self._phones.names[self._phone[n]],
            "id": self._reference[n],
            "message": None if message == NO_MESSAGE else message,
            "attempt": self._attempt[n],
            "faults": self._words.names[self._fault[n]],
            **dict(zip(("type", "media_bytes"), self._media.get(n, ()), strict=False)),
            **self._changing(n),
            "end": None if math.isnan(end) else end,
        }

    def _changing(self, n: int) -> dict[str, Any]:
        return {
            "answer": self._words.names[self._answer[n]] or None,
            "status": self._status[n] or None,
            "delivered": self._fate[n] == DELIVERED,
            "repeated": self._fate[n] == REPEATED,
        }

    def entries(self, *, since: int, limit: int) -> Iterator[dict[str, Any]]:
        """Requests number ``since`` and later, at most ``limit``, in the order of arrival."""
        return (self.entry(n) for n in range(since, min(len(self), since + limit)))

    def of_device(self, device: str) -> list[dict[str, Any]]:
        """All requests of one device, in the order of arrival."""
        return [self.entry(n) for n in self._by_device.get(device, ())]

    def devices(self) -> list[str]:
        """Every device that made a request, in order of first appearance."""
        return list(self._devices.names)

    def summary(self) -> dict[str, Any]:
        """The counts a judge wants first. ``duplicates``: phones that got the same message more than once."""
        return {
            "requests": len(self),
            "deliveries": self.deliveries,
            "duplicates": len(self._twice),
            "duplicate_examples": [
                {
                    "phone": self._phones.names[key & ((1 << PHONE_BITS) - 1)],
                    "message": key >> PHONE_BITS,
                    "deliveries": extra + 1,
                }
                for key, extra in self._twice.most_common(MAX_EXAMPLES)
            ],
            "duplicate_requests": self.duplicate_requests,
            "incomplete_requests": self.incomplete_requests,
            "answers": dict(self.answers),
            "faults": dict(self.faults),
            "in_flight": sum(len(flying) for flying in self._flying.values()),
            "devices": len(self._devices.names),
            "max_in_flight": self.max_in_flight,
        }

    # -- the file --------------------------------------------------------------------------------------------------

    def _write(self, n: int) -> None:
        if self._file is None:
            return
        state = self._open[n]
        if state.written_fate is not None:
            end = self._end[n]
            line: dict[str, Any] = {"n": n, **self._changing(n), "end": None if math.isnan(end) else end}
        else:
            line = self.entry(n)
        state.written_fate = self._fate[n]
        self._file.append(line)

    def open_file(self, path: Path) -> None:
        """Use ``path`` from now on, after reading back what an earlier run wrote to it.

        Requests that were in flight then are closed as ``simulator_stopped``. Raises :class:`LedgerUnusable`.
        """
        file = LedgerFile(path)
        file.read_back(self._restore)  # not ours yet: what was read need not be written
        self._file = file
        for n in list(self._open):
            self.close(Ticket(n, self.generation), answer="simulator_stopped", status=0)

    def _restore(self, line: dict[str, Any]) -> None:
        n = line["n"]
        if n == len(self):
            message = NO_MESSAGE if line["message"] is None else line["message"]
            arrival = Arrival(
                device=line["device"],
                phone=line["phone"],
                reference=line["id"],
                message=message,
                attempt=line["attempt"],
                at=line["at"],
                monotonic=line["monotonic"],
                type=line.get("type", "text"),
                media_bytes=line.get("media_bytes", 0),
            )
            self._append(arrival, line["faults"])
            self._open[n] = _Open(device=arrival.device, written_fate=NOTHING)
            flying = self._flying.setdefault(arrival.device, {})
            flying[n] = None
            self.max_in_flight[arrival.device] = max(len(flying), self.max_in_flight.get(arrival.device, 0))
        if line["delivered"] and self._fate[n] == NOTHING:
            if (reference := self._reference[n]) is not None:
                self._accepted.setdefault(self._name(n), set()).add(reference)
            self._deliver(n)
        elif line["repeated"] and self._fate[n] == NOTHING:
            self._fate[n] = REPEATED
            self.duplicate_requests += 1
        if line["end"] is not None and line["answer"] is not None:
            self._end[n] = line["end"]
            self.close(Ticket(n, self.generation), answer=line["answer"], status=line["status"] or 0)

    def reset(self) -> None:
        """Forget everything, in the file too. Requests in flight end unrecorded."""
        self.generation += 1
        self._clear()
        if self._file is not None:
            self._file.cut_to(0)

    def close_file(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _external_id(*parts: str) -> str:
    """The simulator's own id: the same parts give the same id, also in another run."""
    return "sim-" + hashlib.blake2b("\0".join(parts).encode(), digest_size=10).hexdigest()
