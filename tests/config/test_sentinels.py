"""A master, two replicas and three Sentinels, real ones: found by all who need them, and failing over in a campaign."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import redis
from celery import Celery
from django.core.cache import CacheHandler
from django.utils import timezone

from campaigns import services as campaigns
from campaigns.models import RunState
from config import broker
from config.demo.verdict import judge
from config.stack.addresses import redis_from_url
from config.stack.errors import StackError
from config.stack.sentinels import watched_from_url
from messaging.models import Message
from messaging.states import State
from tests.factories import make_campaign, make_leads, make_pool, make_user
from tests.messaging.transport.server import BINARY
from tests.programs import ROOT, database_url, worker_and_beat
from tests.simulator_process import running_simulator, wait_until

PASSWORD, SENTINEL_PASSWORD = "of the servers", "of the sentinels"


@dataclass
class Watch:
    """Three servers and those who watch them; ports of the Sentinels first to last."""

    folder: Path
    servers: dict[int, subprocess.Popen] = field(default_factory=dict)
    sentinels: dict[int, subprocess.Popen] = field(default_factory=dict)

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{port}" for port in self.sentinels)
        return f"sentinel://:of%20the%20servers@{hosts}/0?master=fleet&sentinel_password=of%20the%20sentinels"

    def begin(self) -> None:
        master = _free_port()
        for port in (master, _free_port(), _free_port()):
            follow = "" if port == master else f"replicaof 127.0.0.1 {master}\n"
            self.servers[port] = self._start(
                port,
                f'requirepass "{PASSWORD}"\nmasterauth "{PASSWORD}"\nsave ""\nrepl-diskless-sync-delay 0\n{follow}',
            )
        wait_until(lambda: self._followers(master) == 2, what="two replicas", seconds=60)
        for port in (_free_port() for _ in range(3)):
            self.sentinels[port] = self._start(
                port,
                f'requirepass "{SENTINEL_PASSWORD}"\nsentinel sentinel-pass "{SENTINEL_PASSWORD}"\n'
                f"sentinel monitor fleet 127.0.0.1 {master} 2\n"
                f'sentinel auth-pass fleet "{PASSWORD}"\n'
                "sentinel down-after-milliseconds fleet 2000\nsentinel failover-timeout fleet 6000\n",
                "--sentinel",
            )
        wait_until(self._all_know, what="three Sentinels that know each other and both replicas", seconds=60)

    def _start(self, port: int, words: str, *options: str) -> subprocess.Popen:
        home = self.folder / str(port)
        home.mkdir()
        (home / "server.conf").write_text(f"port {port}\nbind 127.0.0.1\ndir {home}\nloglevel warning\n{words}")
        return subprocess.Popen([BINARY, str(home / "server.conf"), *options], cwd=home, stdout=subprocess.DEVNULL)

    def _followers(self, port: int) -> int:
        with redis.Redis(port=port, password=PASSWORD) as client:
            try:
                told = client.info("replication")
            except redis.ConnectionError:
                return 0
        return sum(told.get(f"slave{n}", {}).get("state") == "online" for n in range(2))

    def _all_know(self) -> bool:
        return all(
            (told["num-other-sentinels"], told["num-slaves"]) == (2, 2)
            for told in map(self.told, self.sentinels)
            if told
        ) and all(map(self.told, self.sentinels))

    def told(self, port: int) -> dict[str, object]:
        """What one Sentinel says of the master."""
        with redis.Redis(port=port, password=SENTINEL_PASSWORD) as client:
            try:
                return client.sentinel_master("fleet")
            except (redis.ConnectionError, redis.ResponseError):
                return {}

    def master(self) -> int:
        """The port of the master, by the last Sentinel."""
        return int(self.told(list(self.sentinels)[-1])["port"])

    def hand_over(self) -> None:
        """An orderly failover: the master lives on as a replica."""
        before = self.master()
        with redis.Redis(port=next(iter(self.sentinels)), password=SENTINEL_PASSWORD) as client:
            client.sentinel_failover("fleet")
        wait_until(lambda: self.master() != before, what="another master", seconds=60)

    def kill_master(self) -> None:
        """The hard way, together with one Sentinel; what had not reached a replica is gone."""
        before, first = self.master(), next(iter(self.sentinels))
        for process in (self.sentinels[first], self.servers[before]):
            process.kill()
            process.wait(10)
        wait_until(lambda: self.master() != before, what="another master", seconds=60)

    def end(self) -> None:
        for process in (*self.sentinels.values(), *self.servers.values()):
            process.kill()
            process.wait(10)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[Watch]:
    found = Watch(tmp_path)
    try:
        found.begin()
        yield found
    finally:
        found.end()


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.django_db(transaction=True)
def test_a_campaign_survives_an_orderly_and_a_hard_failover(watch: Watch, tmp_path: Path):
    owner = make_user()
    pool, _ = make_pool(owner=owner, devices=6, delay_min_seconds=0.4, delay_max_seconds=0.6)
    make_leads(180, owner=owner)
    (home := tmp_path / "programs").mkdir()
    with (
        running_simulator() as simulator,
        worker_and_beat(
            simulator, home, DATABASE_URL=database_url(), REDIS_URL=watch.url, FLOTILLA_REPUBLISH_SECONDS="2"
        ),
    ):
        campaign = make_campaign(owner=owner, pool=pool, delay_min_seconds=0.4, delay_max_seconds=0.6)
        run = campaigns.launch(campaign=campaign, now=timezone.now()).run

        def sent() -> int:
            return Message.objects.filter(state=State.SENT).count()

        wait_until(lambda: sent() >= 40, what="the first messages", seconds=120)
        watch.hand_over()
        after_first = sent()
        wait_until(lambda: sent() >= max(90, after_first + 10), what="messages by the second master", seconds=120)
        watch.kill_master()
        after_second = sent()
        ended = (RunState.FINISHED, RunState.FAILED)
        wait_until(lambda: run.refresh_from_db() or run.state in ended, what="the run to end", seconds=200)
        verdict = judge(batch_id=run.batch_id, entries=simulator.ledger())
    assert after_second < 180, "nothing was left for the third master"
    assert run.state == RunState.FINISHED, run.reason
    assert verdict.clean, verdict
    assert (verdict.delivered, sent()) == (180, 180)


@pytest.mark.slow
def test_everybody_finds_the_master(watch: Watch):
    cache = CacheHandler({"default": {**broker.cache_at(watch.url), "KEY_PREFIX": "cache"}})["default"]
    cache.set("who", "ours")
    with broker.client(watch.url) as client:
        assert client.config_get("port") == {"port": str(watch.master())}
        assert any(b"who" in key for key in client.scan_iter()), "the cache is elsewhere"
    found = broker.celery_broker(watch.url)
    app = Celery("flower's", broker=found.url, set_as_current=False, fixups=set())
    app.conf.update(broker_transport=found.transport, broker_transport_options={**found.options, "priority_steps": [0]})
    with app.connection_for_write() as connection:
        connection.default_channel.client.lpush("control", "a task")
        shown = connection.as_uri(include_password=True)
        assert shown == found.url
    flower = subprocess.run(
        [sys.executable, "-c", FLOWER, shown, repr(dict(found.options))],
        cwd=ROOT, env={**os.environ}, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert "'name': 'control', 'messages': 1" in flower.stdout
    watch.kill_master()
    assert wait_until(lambda: _kept(cache), what="the cache to find the new master", seconds=60) == "again"
    with app.connection_for_write() as connection:
        connection.default_channel.client.ping()


FLOWER = """
import asyncio, sys
from flower.utils.broker import Broker
async def ask():
    print(await Broker(sys.argv[1], broker_options=eval(sys.argv[2])).queues(["control"]))
asyncio.run(ask())
"""


def _kept(cache: object) -> object:
    try:
        cache.set("who", "again")
        return cache.get("who")
    except redis.RedisError:
        return None


class TestAddress:
    def test_it_says_what_each_is_told(self):
        found = watched_from_url("sentinel://me:w%3Ard@a,b:26380,[::1]:26381/3?master=fleet&sentinel_password=x%2By")
        assert found
        assert found.sentinels == (("a", 26379), ("b", 26380), ("::1", 26381))
        assert found.broker_url() == "sentinel://me:w%3Ard@a:26379/3"
        assert found.transport_options()["sentinel_kwargs"] == {"password": "x+y"}
        assert "w:rd" not in repr(found)
        assert "x+y" not in repr(found)
        assert watched_from_url("redis://cache/0") is None

    @pytest.mark.parametrize(
        ("url", "word"),
        [
            ("sentinel://:hunter2@a/0", "master=name"),
            ("sentinel://:hunter2@a/0?master=m&tls=1", "not tls"),
            ("sentinel://:hunter2@a/zero?master=m", "number of a database"),
            ("sentinel://:hunter2@a:b/0?master=m", "host:port"),
            ("sentinel://:hunter2@/0?master=m", "host:port"),
            ("sentinel://:hunter2@a;b/0?master=m", "host:port"),
        ],
    )
    def test_what_is_wrong_is_explained_without_being_quoted(self, url: str, word: str):
        with pytest.raises(StackError, match=word) as caught:
            redis_from_url(url)
        assert "hunter2" not in str(caught.value)
