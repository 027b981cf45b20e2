"""Hosts of a test's own on one machine: network namespaces, joined by a bridge in another one."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

PORT = 45_678
"""Nobody else is in these networks."""


@dataclass(frozen=True)
class Network:
    """Some hosts.

    Attributes:
        prefix: What the names of the namespaces begin with.
        hosts: The names of the hosts.
    """

    prefix: str
    hosts: tuple[str, ...]

    def command(self, host: str) -> Sequence[str]:
        """What to put before a command to run it on a host."""
        return ("ip", "netns", "exec", f"{self.prefix}{host}")

    def address(self, host: str) -> str:
        """The address of a host."""
        return f"10.9.8.{self.hosts.index(host) + 1}"

    def loses_packets(self, host: str, seconds: int) -> None:
        """Let the packets from and to a host be lost in every other second."""
        for turn in range(seconds):
            self._bridge("link", "set", f"to-{host}", ("down", "up")[turn % 2])
            time.sleep(1)
        self._bridge("link", "set", f"to-{host}", "up")

    def _bridge(self, *words: str) -> None:
        run("ip", "-n", f"{self.prefix}bridge", *words)


def run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)


def can_make_networks() -> bool:
    """Whether this user may make network namespaces, and the program for it is there."""
    if os.name != "posix" or os.geteuid() != 0 or shutil.which("ip") is None:
        return False
    with contextlib.suppress(subprocess.CalledProcessError), network("probe"):
        return True
    return False


@contextlib.contextmanager
def network(*hosts: str) -> Iterator[Network]:
    """Hosts that reach each other and nothing else, until the end of the context."""
    made = Network(f"kss-{uuid.uuid4().hex[:6]}-", hosts)
    bridge = f"{made.prefix}bridge"
    names = [bridge, *(f"{made.prefix}{host}" for host in hosts)]
    try:
        for name in names:
            run("ip", "netns", "add", name)
            run("ip", "-n", name, "link", "set", "lo", "up")
        run("ip", "-n", bridge, "link", "add", "bridge", "type", "bridge")
        run("ip", "-n", bridge, "link", "set", "bridge", "up")
        for host in hosts:
            own, port = f"{made.prefix}{host}", f"to-{host}"
            peer = ("peer", "name", "eth0", "netns", own)
            run("ip", "-n", bridge, "link", "add", port, "type", "veth", *peer)
            run("ip", "-n", bridge, "link", "set", port, "master", "bridge", "up")
            run("ip", "-n", own, "addr", "add", f"{made.address(host)}/24", "dev", "eth0")
            run("ip", "-n", own, "link", "set", "eth0", "up")
        yield made
    finally:
        for name in names:
            subprocess.run(("ip", "netns", "del", name), capture_output=True, check=False)
