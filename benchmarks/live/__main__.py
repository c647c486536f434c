"""
300 sessions that stream 100 ms chunks at once through one server on one core.

    ./dev python -m benchmarks.live [--sessions 300] [--seconds 120]

Three processes: `simsched serve` (recording, held to one core), one node whose engine echoes, and
`simsched load`, whose sessions speak 5 s turns with 1.2 s between them. Three figures:

- chunks: how many were sent and how many bytes of audio the server took in; none may be lost;
- p99 from the last chunk of an utterance to its `job_assign`, without the hangover that the policy
  wants (limit 50 ms);
- the server's resident memory by fifths of the time (limit: 10 % more from the second on).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from simsched.models.speech import CHUNK_NS, OPUS

TURN_S, PAUSE_S = 5.0, 1.2
LIMIT_MS = 50.0
GROWTH_MAX = 1.10
COMMAND = [sys.executable, "-m", "simsched"]

WORKLOAD = """
[workload]
arrivals = {{ kind = "poisson", rate_per_s = {rate:g} }}
utterances = {turns}
manual_cut_share = 1.0
speech = {{ kind = "constant", value = "{turn:g} s" }}
pause = {{ kind = "constant", value = "{pause:g} s" }}
codec = "opus"
"""


def on_one_core() -> None:
    """The server may use the first core alone, where the system lets us say so."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def resident_mb(pid: int) -> float:
    """Resident memory of a process, MB (Linux)."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    return int(found[1]) / 1024 if found else 0.0


def start_server(folder: Path, sessions: int) -> tuple[subprocess.Popen[str], int]:
    """The server and its port."""
    process = subprocess.Popen(
        [
            *COMMAND, "serve", "--port", "0", "--record", str(folder / "recording"),
            "--set", f"limits.sessions_per_client_max={sessions + 10}",
            "--set", f"limits.sessions_max={sessions + 10}",
        ],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, preexec_fn=on_one_core,
    )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        found = re.search(r"127\.0\.0\.1:(\d+)", line)
        if found:
            return process, int(found[1])
    raise SystemExit("the server did not start")


def watch(load: subprocess.Popen[bytes], server: int, seconds: float) -> list[float]:
    """The server's memory while the load runs, once a second."""
    seen = []
    until = time.monotonic() + 3 * seconds + 120
    while load.poll() is None and time.monotonic() < until:
        time.sleep(1)
        seen.append(resident_mb(server))
    return seen


def latencies_ms(folder: Path) -> tuple[list[float], int]:
    """From the last chunk to `job_assign` of every utterance; and the bytes that came in."""
    cuts: dict[tuple[str, int], int] = {}
    found, audio = [], 0
    with (folder / "recording" / "events.jsonl").open(encoding="utf-8") as lines:
        for line in lines:
            event = json.loads(line)
            if event["event"] == "utterance_cut":
                ready = event["last_audio_ns"] + event["hangover_ns"]
                cuts[event["session"], event["utterance"]] = ready
            elif event["event"] == "job_dispatched":
                session, utterance, _ = event["job"].rsplit(":", 2)
                ready = cuts.pop((session, int(utterance)), None)
                if ready is not None:
                    found.append((event["at_ns"] - ready) / 1e6)
            elif event["event"] == "session_closed":
                audio += event["audio_bytes_in"]
    return sorted(found), audio


def run(sessions: int, seconds: float, folder: Path) -> int:
    """Run it all; 0 if every figure is within its limit."""
    turns = max(1, round(seconds / (TURN_S + PAUSE_S)))
    workload = folder / "workload.toml"
    rate = sessions / 5
    workload.write_text(WORKLOAD.format(rate=rate, turns=turns, turn=TURN_S, pause=PAUSE_S))
    server, port = start_server(folder, sessions)
    url = f"ws://127.0.0.1:{port}"
    node = subprocess.Popen(
        [*COMMAND, "node", url, "--slots", str(sessions)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    time.sleep(2)
    load = subprocess.Popen(
        [
            *COMMAND, "load", url, "--file", str(workload), "--sessions", str(sessions),
            "--duration", "60", "--out", str(folder / "load"),
        ]
    )  # fmt: skip
    try:
        memory = watch(load, server.pid, seconds)
    finally:
        for process in (load, node, server):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in (load, node, server):
            process.wait(60)
    return report(folder, memory, sessions)


def report(folder: Path, memory: list[float], sessions: int) -> int:
    """Print the figures; 0 if all are within their limits."""
    figures = json.loads((folder / "load" / "load.json").read_text(encoding="utf-8"))
    waits, audio = latencies_ms(folder)
    p50, p99 = (waits[round(q * (len(waits) - 1))] for q in (0.5, 0.99))
    fifths = [memory[min(len(memory) - 2, part * len(memory) // 5)] for part in range(1, 6)]
    print(f"sessions                    {figures['sessions']} of {sessions}")
    print(f"utterances                  {figures['utterances']}, answered {figures['answered']}")
    print(f"lost, twice, out of order   {figures['lost']}, {figures['twice']}, "
          f"{figures['out_of_order']}")  # fmt: skip
    taken = audio / OPUS.size(CHUNK_NS)
    print(f"chunks sent, taken in       {figures['chunks']}, {taken:g}")
    print(f"last chunk to job_assign    p50 {p50:.2f} ms, p99 {p99:.2f} ms (limit {LIMIT_MS:g})")
    print(f"memory of the server, MB    {', '.join(f'{size:.0f}' for size in fifths)} by fifths")
    sound = figures["answered"] == figures["utterances"] == len(waits)
    sound = sound and taken == figures["chunks"]
    return 0 if sound and p99 < LIMIT_MS and fifths[4] <= GROWTH_MAX * fifths[1] else 1


def main() -> int:
    """Run it as asked on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--sessions", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=120)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        return run(asked.sessions, asked.seconds, Path(folder))


if __name__ == "__main__":
    raise SystemExit(main())
