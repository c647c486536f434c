"""Engines answer jobs, fail with a code, and let go when they are told to."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simsched.errors import ConfigError
from simsched.live.engines import (
    Engine,
    EngineFailure,
    EngineOptions,
    EngineResult,
    SleepEngine,
    answer,
    engine_named,
)
from simsched.live.load_session import Sounds
from simsched.messages import ErrorCode, JobAssign, Pipeline
from simsched.models.service import ServiceModel
from simsched.models.speech import OPUS
from tests.live.fake_scheduler import run


def job(audio: bytes = bytes(3_200), **fields: Any) -> JobAssign:
    given: dict[str, Any] = {
        "job_id": "s-1:0:zh", "attempt_id": 1, "session_id": "s-1", "utterance_index": 0,
        "src_lang": "en", "tgt_lang": "zh", "pipeline": Pipeline(), "audio": audio,
        "audio_format": "pcm16", "sample_rate": 16_000, "trace_id": "t",
    }  # fmt: skip
    return JobAssign(**{**given, **fields})


def command(tmp_path: Path, body: str, *, timeout_s: float = 20.0, words: str = "") -> Engine:
    """An engine around a small Python program."""
    program = tmp_path / "engine.py"
    program.write_text(textwrap.dedent(body), encoding="utf-8")
    line = f"{sys.executable} -S {program} {words}"
    return engine_named("command", EngineOptions(command=line, timeout_s=timeout_s))


def outcome(engine: Engine, assigned: JobAssign) -> EngineResult | EngineFailure:
    return run(answer(engine, assigned))


@given(st.integers(0, 2_000))
@settings(max_examples=20, deadline=None)
def test_echo_says_how_much_it_got(samples: int) -> None:
    """The whole audio reaches the engine, whatever its length."""
    found = outcome(engine_named("echo"), job(bytes(2 * samples)))
    assert isinstance(found, EngineResult)
    assert found.text_asr == f"{2 * samples} bytes of pcm16"


def test_sleep_takes_as_long_as_the_simulator_s_nodes() -> None:
    """Its timings are the service model's, the same for the same job, shorter for a fast node."""
    engine = engine_named("sleep", EngineOptions(speed=1_000.0, seed=7))
    first, again = outcome(engine, job()), outcome(engine, job())
    other = outcome(engine, job(utterance_index=1))
    slow = run(_timings(SleepEngine(ServiceModel(), speed=10.0, seed=7), job()))
    assert isinstance(first, EngineResult)
    assert isinstance(again, EngineResult)
    assert isinstance(other, EngineResult)
    assert first.timings == again.timings
    assert slow > 0
    assert other.text_asr != first.text_asr


async def _timings(engine: Engine, assigned: JobAssign) -> int:
    found = await engine.run(assigned)
    assert found.timings is not None
    return found.timings.total_ms or 0


def test_sleep_reads_its_times_from_a_study(tmp_path: Path) -> None:
    """The table `[scenario.service]` of a study file says how long a node works."""
    file = tmp_path / "study.toml"
    file.write_text('[scenario.service]\nservice = { kind = "constant", value_ms = 30 }\n')
    assert run(_timings(engine_named("sleep", EngineOptions(service=file)), job())) == 30


def test_opus_is_refused_by_who_cannot_read_it(tmp_path: Path) -> None:
    """Without a decoder Opus is UNSUPPORTED_FEATURE, and the program is not even started."""
    opus = Sounds().raw(OPUS, 600)
    engine = command(tmp_path, f"open({str(tmp_path / 'ran')!r}, 'w')")
    failure = outcome(engine, job(opus, audio_format="opus"))
    assert isinstance(failure, EngineFailure)
    assert failure.code == ErrorCode.UNSUPPORTED_FEATURE
    assert not (tmp_path / "ran").exists()
    assert isinstance(outcome(engine_named("echo"), job(opus, audio_format="opus")), EngineResult)


def test_pcm_that_is_called_opus_is_read_as_pcm(tmp_path: Path) -> None:
    """Clients that stream PCM are called "opus" by the protocol: the bytes decide."""
    engine = command(tmp_path, 'print(\'{"text_asr": "heard"}\')')
    found = outcome(engine, job(bytes(3_200), audio_format="opus"))
    assert isinstance(found, EngineResult)
    assert found.text_asr == "heard"


PROGRAM = """
    import base64, io, json, os, sys, wave
    with wave.open(io.BytesIO(sys.stdin.buffer.read())) as file:
        sound = file.readframes(file.getnframes())
        form = file.getframerate(), file.getnchannels(), file.getsampwidth()
    print(json.dumps({
        "text_asr": f"{len(sound)} {form}", "text_translated": " ".join(sys.argv[1:]),
        "tts_audio": base64.b64encode(sound).decode(), "unknown": 1,
        "service_timings": {"asr_ms": 5},
        "language_probability": 0.5,
    }))
"""


def test_a_program_reads_a_wav_and_prints_json(tmp_path: Path) -> None:
    """The job's audio arrives as a WAV, the languages as arguments, the answer comes back."""
    pcm = bytes(range(256)) * 8
    found = outcome(command(tmp_path, PROGRAM, words="--to {tgt} --from {src}"), job(pcm))
    assert isinstance(found, EngineResult)
    assert found.text_asr == "2048 (16000, 1, 2)"
    assert found.text_translated == "--to zh --from en"
    assert found.tts_audio == pcm
    assert found.timings is not None
    assert found.timings.asr_ms == 5


FAILURES = {
    "import sys; sys.stderr.write('no\\nmodel'); sys.exit(3)": ("PROCESSING_ERROR", "no model"),
    "print('not json')": ("PROCESSING_ERROR", "printed no result"),
    "": ("PROCESSING_ERROR", "printed no result"),
    "print('{\"text_asr\": 5}')": ("PROCESSING_ERROR", "text_asr"),
    "print('{\"error\": {\"code\": \"NMT_TIMEOUT\", \"message\": \"slow\"}}')": (
        "NMT_TIMEOUT", "slow",
    ),
    "import os; os.kill(os.getpid(), 9)": ("PROCESSING_ERROR", "-9"),
    "import sys; sys.stderr.write('x' * 100000); sys.exit(1)": ("PROCESSING_ERROR", "xxx"),
}  # fmt: skip


@pytest.mark.parametrize(("body", "told"), FAILURES.items())
def test_a_program_that_fails_says_why_on_one_short_line(
    tmp_path: Path, body: str, told: tuple[str, str]
) -> None:
    """Whatever goes wrong is a code and a line, never an exception."""
    failure = outcome(command(tmp_path, body), job())
    assert isinstance(failure, EngineFailure)
    assert failure.code == told[0]
    assert told[1] in failure.message
    assert "\n" not in failure.message
    assert len(failure.message) < 1_200


def test_a_program_that_is_not_there_is_a_missing_model() -> None:
    """The scheduler then keeps such jobs away from this node."""
    engine = engine_named("command", EngineOptions(command="/nowhere/engine"))
    failure = outcome(engine, job())
    assert isinstance(failure, EngineFailure)
    assert failure.code == ErrorCode.MODEL_NOT_AVAILABLE


def test_a_language_is_never_an_option(tmp_path: Path) -> None:
    """A client's word in the program's arguments cannot become one of its switches."""
    failure = outcome(command(tmp_path, "print('{}')", words="{src}"), job(src_lang="--help"))
    assert isinstance(failure, EngineFailure)
    assert failure.code == ErrorCode.UNSUPPORTED_FEATURE


FAMILY = """
    import os, subprocess, sys, time
    child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"])
    open({pids!r}, "w").write(f"{{os.getpid()}} {{child.pid}}\\n")
    time.sleep(600)
"""


def _gone(pid: int) -> bool:
    """Whether a process is dead; one that nobody has buried yet counts."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z"


def _written(file: Path) -> list[int]:
    """The processes that a program wrote down, once it has."""
    text = file.read_text() if file.exists() else ""
    return [int(word) for word in text.split()] if text.endswith("\n") else []


async def _pids(file: Path) -> list[int]:
    while not (pids := _written(file)):  # noqa: ASYNC110  # no event tells
        await asyncio.sleep(0.01)
    return pids


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs process groups")
def test_a_cancelled_job_leaves_no_process_behind(tmp_path: Path) -> None:
    """The program and its children are dead when the job is."""
    file = tmp_path / "pids"

    async def main() -> list[int]:
        engine = command(tmp_path, FAMILY.format(pids=str(file)))
        working = asyncio.create_task(answer(engine, job()))
        pids = await _pids(file)
        working.cancel()
        await asyncio.wait({working})
        assert working.cancelled()
        while not all(_gone(pid) for pid in pids):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        return pids

    assert len(run(main())) == 2


def test_a_program_that_takes_too_long_is_killed_with_its_children(tmp_path: Path) -> None:
    """The answer is JOB_TIMEOUT, soon after the limit, and nothing lives on."""
    file = tmp_path / "pids"

    async def main() -> None:
        engine = command(tmp_path, FAMILY.format(pids=str(file)), timeout_s=2.0)
        failure = await answer(engine, job())
        assert isinstance(failure, EngineFailure)
        assert failure.code == ErrorCode.JOB_TIMEOUT
        while not all(_gone(pid) for pid in await _pids(file)):  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    run(main())


def test_a_child_that_holds_the_pipe_does_not_hold_the_node(tmp_path: Path) -> None:
    """A program that left a daemon behind ends with the time limit, daemon included."""
    body = """
        import subprocess, sys
        subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"])
        print("{}")
    """
    began_s = time.monotonic()
    failure = outcome(command(tmp_path, body, timeout_s=1.0), job())
    assert isinstance(failure, EngineFailure)
    assert time.monotonic() - began_s < 15


OWN = """
from simsched.live.engines import EngineFailure, EngineResult


class Mine:
    formats = ("pcm16",)

    async def run(self, job):
        if job.tgt_lang == "xx":
            raise EngineFailure("MODEL_NOT_AVAILABLE", "no such language")
        if job.tgt_lang == "yy":
            raise ZeroDivisionError("of mine")
        if job.tgt_lang == "zz":
            return "a text"
        return EngineResult(text_asr="mine")


class NoRun:
    pass
"""


def test_an_engine_of_one_s_own_is_a_class_with_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It answers, fails with its own code, and its mistakes are failures, not crashes."""
    (tmp_path / "own_engine.py").write_text(OWN, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    engine = engine_named("python:own_engine:Mine")
    found = outcome(engine, job())
    assert isinstance(found, EngineResult)
    assert found.text_asr == "mine"
    for language, code, words in (
        ("xx", "MODEL_NOT_AVAILABLE", "no such language"),
        ("yy", "PROCESSING_ERROR", "ZeroDivisionError: of mine"),
        ("zz", "PROCESSING_ERROR", "returned a str"),
    ):
        failure = outcome(engine, job(tgt_lang=language))
        assert isinstance(failure, EngineFailure)
        assert (failure.code, words in failure.message) == (code, True)


def test_the_documented_class_and_program_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """docs/node.md: the very code, and the very JSON."""
    page = (Path(__file__).parents[2] / "docs" / "node.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n(.*?)```", page, re.DOTALL)
    printed = re.search(r"```json\n(.*?)```", page, re.DOTALL)
    assert code is not None
    assert printed is not None
    (tmp_path / "shouting.py").write_text(code[1], encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    engine = engine_named("python:shouting:Shouting")
    found = outcome(engine, job(tgt_lang="en"))
    assert isinstance(found, EngineResult)
    assert found.text_translated == "100 MS OF EN"
    assert isinstance(outcome(engine, job(tgt_lang="zh")), EngineFailure)
    (tmp_path / "answer.json").write_text(printed[1], encoding="utf-8")
    answered = outcome(
        command(tmp_path, f"print(open({str(tmp_path / 'answer.json')!r}).read())"), job()
    )
    assert isinstance(answered, EngineResult)
    assert (answered.text_translated, answered.tts_audio) == ("你好", bytes(4))


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("whisper", EngineOptions(), "echo, sleep, command or python:module:Class"),
        ("command", EngineOptions(), "--command"),
        ("command", EngineOptions(command="a 'b"), "quotation"),
        ("command", EngineOptions(command="a", timeout_s=0), "above 0"),
        ("sleep", EngineOptions(speed=0), "above 0"),
        ("sleep", EngineOptions(service=Path("/nowhere.toml")), "No such file"),
        ("python:own_engine", EngineOptions(), "python:module:Class"),
        ("python:no_such_module:Class", EngineOptions(), "No module named"),
        ("python:json:dumps", EngineOptions(), "TypeError"),
        ("python:collections:OrderedDict", EngineOptions(), "async def run"),
    ],
)
def test_an_engine_that_cannot_be_made_is_one_clear_line(
    name: str, options: EngineOptions, says: str
) -> None:
    """The line names what would be right."""
    with pytest.raises(ConfigError, match=says) as error:
        engine_named(name, options)
    assert "\n" not in str(error.value)
