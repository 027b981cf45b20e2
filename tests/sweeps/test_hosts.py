"""A chief and two workers on three hosts of the test's own, killed and cut off from each other."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers_hosts import PORT, Network, can_make_networks, network
from helpers_sweeps import points, started

from keras_structsparse.sweeps import read_run

MINUTES = 15 * 60
DOWN = 15.0
"""Seconds without a chief: longer than a worker is silent."""


class Cluster:
    """A chief and workers, each on the host of its name."""

    def __init__(self, hosts: Network, folder: Path, logs: Path) -> None:
        self.hosts, self.folder, self.logs = hosts, folder, logs
        self.members: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str) -> None:
        cluster = {
            "KERASTUNER_ORACLE_IP": self.hosts.address("chief"),
            "KERASTUNER_ORACLE_PORT": str(PORT),
            "KERASTUNER_TUNER_ID": name,
        }
        with (self.logs / f"{name}.log").open("ab") as log:
            self.members[name] = started(
                *(self.folder, "seeds"),
                stdout=log,
                stderr=log,
                environment=cluster,
                prefix=self.hosts.command(name),
            )

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        for name in self.members:
            self.kill(name)

    def kill(self, name: str) -> None:
        self.members[name].send_signal(signal.SIGKILL)
        self.members[name].wait()

    def said(self, name: str) -> str:
        return (self.logs / f"{name}.log").read_text()

    def finished(self) -> dict[str, int]:
        """The finished trials, and when they were written."""
        return {
            file.name: file.stat().st_mtime_ns for file in self.folder.glob("trials/[!.]*.json")
        }


def until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + MINUTES
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.2)


@pytest.mark.slow
@pytest.mark.skipif(not can_make_networks(), reason="needs the right to make network namespaces")
def test_three_hosts_find_what_one_finds(tmp_path: Path) -> None:
    assert started(tmp_path / "alone", "seeds").wait(MINUTES) == 0
    expected = points(read_run(tmp_path / "alone"))
    with (
        network("chief", "worker-1", "worker-2") as hosts,
        Cluster(hosts, tmp_path / "run", tmp_path) as cluster,
    ):
        for name in hosts.hosts:
            cluster.start(name)
        until(lambda: len(cluster.finished()) >= 1, "a trial")
        first = cluster.finished()
        until(lambda: "worker-1 trains" in cluster.said("chief"), "work for a worker")
        cluster.kill("worker-1")
        cluster.start("worker-1")
        until(lambda: len(cluster.finished()) >= 3, "three trials")
        until(lambda: any(cluster.folder.glob("trials/.*.claim")), "a trial that is trained")
        cluster.kill("chief")
        time.sleep(DOWN)
        second = cluster.finished()
        cluster.start("chief")
        hosts.loses_packets("worker-2", 20)
        ends = {name: member.wait(MINUTES) for name, member in cluster.members.items()}
        assert ends == dict.fromkeys(hosts.hosts, 0), [cluster.said(name) for name in hosts.hosts]
        last = cluster.finished()
    run = read_run(tmp_path / "run")
    assert first.items() <= second.items() <= last.items(), "no trial is written twice"
    assert points(run) == expected
    assert not run.missing()
    assert not list(tmp_path.glob("run/*/.*")), "nothing is left of claims"
    workers = cluster.said("worker-1") + cluster.said("worker-2")
    assert f"waits for the chief at {hosts.address('chief')}:{PORT}" in workers
    trained = [line.partition(" in ")[0] for line in workers.splitlines() if "validation" in line]
    assert len(trained) == len(set(trained)), "no trial is trained to its end twice"
    print("\n".join(f"--- {name}\n{cluster.said(name)}" for name in hosts.hosts))


@pytest.mark.slow
def test_two_processes_share_a_run_without_a_chief(tmp_path: Path) -> None:
    assert started(tmp_path / "alone").wait(MINUTES) == 0
    logs = [tmp_path / f"{i}.log" for i in range(2)]
    with logs[0].open("wb") as first, logs[1].open("wb") as second:
        both = [started(tmp_path / "run", stdout=log) for log in (first, second)]
        assert [process.wait(MINUTES) for process in both] == [0, 0]
    run = read_run(tmp_path / "run")
    assert points(run) == points(read_run(tmp_path / "alone"))
    said = [line for log in logs for line in log.read_text().splitlines()]
    trained = [line for line in said if "validation accuracy" in line]
    assert len(trained) == len(run.trials()), "no trial is trained twice"
    assert any(line.startswith("waits for alpha-") for line in said)
