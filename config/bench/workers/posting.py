"""The single-device baseline: plain threads that post as fast as they can. No queue, no database.

usage: python -m workers.posting THREADS FILE    (FILE: JSON ``[[url, body], …]``)
"""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path

import requests

from .counting import hit


def main() -> None:
    """Post everything in the file, shared out over the threads."""
    threads, source = int(sys.argv[1]), Path(sys.argv[2])
    waiting = iter(json.loads(source.read_text()))
    lock = threading.Lock()

    def work() -> None:
        with requests.Session() as session:
            session.trust_env = False
            session.headers.update({"Accept-Encoding": "identity", "User-Agent": "flotilla"})
            while True:
                with lock:
                    item = next(waiting, None)
                if item is None:
                    return
                session.post(item[0], json=item[1], timeout=(5, 30)).raise_for_status()
                hit()

    crew = [threading.Thread(target=work) for _ in range(threads)]
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join()


if __name__ == "__main__":
    main()
