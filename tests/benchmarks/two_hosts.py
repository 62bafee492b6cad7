"""Two hosts on one machine: network namespaces with names of their own, joined by a link of a chosen rate.

Each has a host name (a UTS namespace), so that an MPI library takes them for two machines. Everything between them
goes over TCP through a veth pair, and ``tc tbf`` limits what leaves either end, so that the link is full duplex as a
cable is. MPI jobs are started as on a cluster: ``mpirun`` runs on the first host and reaches the second through a
launch agent, which here enters a namespace in place of ssh. Needs Linux, root, iproute2 and util-linux.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from harness import Unavailable

TOOLS = ("ip", "tc", "unshare")
NETWORK = "10.77.0"
# A bucket of half a millisecond at 10 Gbit/s, and a queue that no message of a benchmark fills.
BURST, LATENCY = "512kb", "50ms"
AGENT = """#!/bin/sh
# Called as ssh is: options, an address, a command.
while [ "${{1#-}}" != "$1" ]; do shift; done
shift
exec ip netns exec {namespace} unshare --uts sh -c "hostname {host}; $*"
"""


class TwoHosts:
    """The namespaces, from ``__enter__`` to ``__exit__``.

    Attributes:
        addresses: of the two hosts.
        interfaces: their ends of the link.

    Raises:
        Unavailable: by ``__enter__``, where this system or this user cannot have them.
    """

    def __init__(self) -> None:
        mark = os.getpid() % 100_000
        self.namespaces = (f"distgrad-{mark}-a", f"distgrad-{mark}-b")
        self.interfaces = (f"dg{mark}a", f"dg{mark}b")
        self.hosts = ("node-a", "node-b")
        self.addresses = (f"{NETWORK}.1", f"{NETWORK}.2")
        self._agent = Path(tempfile.gettempdir())  # until there is one

    def __enter__(self) -> TwoHosts:
        missing = [tool for tool in TOOLS if shutil.which(tool) is None]
        if missing:
            raise Unavailable(f"needs {', '.join(missing)} (packages iproute2 and util-linux)")
        if os.geteuid() != 0:
            raise Unavailable("network namespaces need root")
        try:
            for namespace in self.namespaces:
                _command("ip", "netns", "add", namespace)
            first, second = self.interfaces
            _command("ip", "link", "add", first, "type", "veth", "peer", "name", second)
            for namespace, interface, address in zip(self.namespaces, self.interfaces, self.addresses, strict=True):
                _command("ip", "link", "set", interface, "netns", namespace)
                _command("ip", "-n", namespace, "address", "add", f"{address}/24", "dev", interface)
                for name in ("lo", interface):
                    _command("ip", "-n", namespace, "link", "set", name, "up")
            handle, path = tempfile.mkstemp(prefix="distgrad-agent-", suffix=".sh")
            self._agent = Path(path)
            with open(handle, "w") as file:
                file.write(AGENT.format(namespace=self.namespaces[1], host=self.hosts[1]))
            self._agent.chmod(0o700)
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._remove()

    def _remove(self) -> None:
        for namespace in self.namespaces:  # the link goes with them
            subprocess.run(["ip", "netns", "delete", namespace], capture_output=True, check=False)
        subprocess.run(["ip", "link", "delete", self.interfaces[0]], capture_output=True, check=False)
        if self._agent.is_file():
            self._agent.unlink()

    def set_rate(self, gigabits: float | None) -> None:
        """Limits each direction to so many Gbit/s; None: as fast as the machine."""
        for namespace, interface in zip(self.namespaces, self.interfaces, strict=True):
            place = ("tc", "-n", namespace, "qdisc")
            subprocess.run([*place, "delete", "dev", interface, "root"], capture_output=True, check=False)
            if gigabits is not None:
                rate = ("rate", f"{1000 * gigabits:.0f}mbit", "burst", BURST, "latency", LATENCY)
                _command(*place, "add", "dev", interface, "root", "tbf", *rate)

    def on(self, number: int, command: Sequence[str]) -> list[str]:
        """``command`` as it is started on host ``number``."""
        script = f'hostname {self.hosts[number]}; exec "$@"'
        return ["ip", "netns", "exec", self.namespaces[number], "unshare", "--uts", "sh", "-c", script, "sh", *command]

    def mpirun(self, command: Sequence[str], parameters: Mapping[str, str], each: int = 1) -> list[str]:
        """``command`` as ranks of both hosts, between which they use TCP.

        Args:
            command: what each rank runs.
            parameters: of Open MPI besides.
            each: ranks on each host; several of them reach one another through shared memory.
        """
        program = shutil.which("mpirun", path=search_path())
        if program is None:
            raise Unavailable("there is no mpirun")
        network = f"{NETWORK}.0/24"
        given = {
            "pml": "ob1",
            "btl": "tcp,self" if each == 1 else "tcp,self,sm",
            "btl_tcp_if_include": network,
            **parameters,
        }
        words = [program, "-n", str(2 * each), "--host", ",".join(f"{address}:{each}" for address in self.addresses)]
        words += ["--prtemca", "plm_ssh_agent", str(self._agent), "--prtemca", "prte_if_include", network]
        words += [word for name, value in given.items() for word in ("--mca", name, value)]
        return self.on(0, [*words, "--bind-to", "none", *command])


def search_path() -> str:
    """PATH with this interpreter's own folder first."""
    return f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"


def _command(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unavailable(f"{' '.join(words)}: {done.stderr.strip()}")
