"""
What a correct scheduler owes (the invariants), and where breaches of it are written down.

`INVARIANTS` is the list that reports print. `Findings` counts how often each one was put to the
test and how often it failed; a rule that was never exercised proves nothing, and one that held n
times still fails with a probability of up to 3/n (95 %, the rule of three). What the rules are and
how they are checked is not known here: see `invariants` and `conservation`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Final, Generic, NamedTuple, TypeVar

from simsched.errors import ConfigError
from simsched.units import MS, SECOND

VIOLATIONS_MAX: Final = 1_000
"""Violations kept with their text; all of them are counted."""

REMEMBERED_MAX: Final = 8_192
"""Ended things of one kind (jobs, answers, sessions) that are remembered for late repeats."""

CONSERVATION: Final = "conservation"


def forget_oldest(book: dict[Any, Any]) -> None:
    """Drop what was put in first, if there are more than `REMEMBERED_MAX`."""
    if len(book) > REMEMBERED_MAX:
        del book[next(iter(book))]


class Invariant(NamedTuple):
    """One promise: its name and what it says, in English and in Chinese."""

    name: str
    english: str
    chinese: str


INVARIANTS: Final = (
    Invariant(
        "I1",
        "An utterance has at most one job per target language that has not failed.",
        "同一句话对每个目标语言至多有一个未失败的任务。",
    ),
    Invariant(
        "I2",
        "A node never holds more jobs than it has slots: (a) by the store, (b) in truth.",
        "节点承担的任务数从不超过其槽位数：(a) 按存储的记录，(b) 按实际运行。",
    ),
    Invariant(
        "I3",
        "Every utterance is answered exactly once towards each target, within a bound.",
        "每句话在限定时间内对每个接收方恰好答复一次。",
    ),
    Invariant(
        "I4",
        "Only the current attempt's result is accepted, and no older one suppresses it.",
        "只接受当前尝试的结果，且它不会被旧尝试的结果压掉。",
    ),
    Invariant(
        "I5",
        "A slot is free again once its job has ended.",
        "任务结束后，其占用的槽位一定归还。",
    ),
    Invariant(
        "I6",
        "Answers leave in the order of their utterances, unless a gap was given up.",
        "答复按语句顺序发出，除非空缺已因超时而放弃。",
    ),
    Invariant(
        "I7",
        "The utterance index grows by one per cut, and no audio is lost.",
        "每切出一句，序号恰好加一，且音频不丢失。",
    ),
    Invariant(
        "I8",
        "After a failure the session still cuts what is said.",
        "失败之后，会话仍能继续切分后续语音。",
    ),
    Invariant(
        "I9",
        "A request lock is given back by its owner only.",
        "请求锁只由其持有者释放。",
    ),
    Invariant(
        "I10",
        "A node known to be gone receives no job, and keeps none.",
        "已知离线的节点不再收到任务，也不再保有任务。",
    ),
    Invariant(
        "I11",
        "The same request gets the same job when it is repeated.",
        "同一请求重复提交时得到同一个任务。",
    ),
    Invariant(
        "I12",
        "A result is accepted once, whichever instances it crosses.",
        "无论经过哪些实例，一个结果只被接受一次。",
    ),
    Invariant(
        "I13",
        "A silence cuts after the pause: not before it, and not much later.",
        "静音达到停顿阈值后才切分：不提前，也不明显滞后。",
    ),
    Invariant(
        "I14",
        "Equal inputs give equal cuts under a policy and its base.",
        "相同输入在某策略与其基准策略下切分一致。",
    ),
    Invariant(
        "I15",
        "No job gives up waiting while a slot that suits it is free for longer than two scans.",
        "当合适的槽位空闲超过两个扫描周期时，没有任务会放弃等待。",
    ),
    Invariant(
        "I16",
        "Once nothing is broken any more, an utterance gets its translation.",
        "一切恢复正常之后，每句话都得到译文。",
    ),
    Invariant(
        CONSERVATION,
        "Every job made has ended, waits, or runs within its bound: none is lost.",
        "每个已创建的任务要么已结束，要么在限期内排队或运行：没有丢失。",
    ),
)
"""The invariants of a correct scheduler, in the order of reports."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckSettings:
    """
    The bounds that the checked scheduler was run with, in nanoseconds; defaults are its own.

    `hangover_ns` is the slack that a hangover and the steps after it may add to a cut, `scan_ns`
    the period of the timeout scan and so the slack of every bound, `gap_ns` how long an answer may
    be held back for its turn, `binding_ttl_ns` how long a request keeps its job, `lease_ns`
    how long a slot is kept that nobody renews (0: not known). `retries_failures` says that what a
    node could not do is tried elsewhere, as a timeout is. `nodes_alike` says
    that every node takes every job, so that a free slot is free for whoever waits (I15), and `told`
    that the world says what it breaks (`Disturbed`), so that whatever fails in between is a breach
    (I16, and what a broken node or store would excuse).

    Raises:
        ConfigError: if a number is negative.
    """

    pause_ns: int = 3 * SECOND
    hangover_ns: int = 200 * MS
    scan_ns: int = SECOND
    pending_ns: int = 10 * SECOND
    job_timeout_ns: int = 30 * SECOND
    failover_max: int = 3
    gap_ns: int = 10 * SECOND
    binding_ttl_ns: int = 90 * SECOND
    lease_ns: int = 0
    retries_failures: bool = False
    nodes_alike: bool = False
    told: bool = False

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if getattr(self, name) < 0:
                raise ConfigError("invariants", name, "a whole number of 0 or more")

    @property
    def answer_bound_ns(self) -> int:
        """
        The longest that an utterance may stay without an answer (I3).

        Each of the tries may wait for a node and then run into its timeout, each time noticed one
        scan late; the answer may then have to wait for its turn.
        """
        once = self.pending_ns + self.job_timeout_ns + 2 * self.scan_ns
        return (self.failover_max + 1) * once + self.gap_ns + self.scan_ns


@dataclass(frozen=True, slots=True)
class Violation:
    """One breach: of what, when, by whom (job, node, session or request), and where noticed."""

    invariant: str
    at_ns: int
    subject: str
    text: str
    instance: str


class Findings:
    """
    The counts of all invariants.

    `checked` is how often each was put to the test, `counts` how often it failed; `violations`
    keeps the first `VIOLATIONS_MAX` breaches with their text.
    """

    __slots__ = ("checked", "counts", "violations")

    def __init__(self) -> None:
        self.violations: list[Violation] = []
        self.counts = {invariant.name: 0 for invariant in INVARIANTS}
        self.checked = {invariant.name: 0 for invariant in INVARIANTS}

    def add(self, invariant: str, at_ns: int, subject: str, text: str, instance: str = "") -> None:
        """Write a breach down."""
        self.counts[invariant] += 1
        if len(self.violations) < VIOLATIONS_MAX:
            self.violations.append(Violation(invariant, at_ns, subject, text, instance))


K = TypeVar("K", bound=Hashable)


class Tail(Generic[K]):
    """The last things that ended; who falls off the end is given to `forget`."""

    __slots__ = ("_forget", "_keys", "_most")

    def __init__(self, forget: Callable[[K], None], most: int = REMEMBERED_MAX) -> None:
        self._keys: deque[K] = deque()
        self._forget = forget
        self._most = most

    def __len__(self) -> int:
        return len(self._keys)

    def push(self, key: K) -> None:
        """Remember `key` as the latest; the oldest beyond the limit is forgotten."""
        self._keys.append(key)
        if len(self._keys) > self._most:
            self._forget(self._keys.popleft())
