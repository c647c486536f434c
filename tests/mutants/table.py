"""
The mutants: what is planted where, and what must notice.

Each is found by `python -m tests.mutants --only NAME` from seed 1 as schedule `number`; the shrunk
case is `cases/NAME.toml`. `invariants` are those one of which must be broken.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from tests.mutants.planting import Code, Lua, Plant


class Mutant(NamedTuple):
    """One deliberate fault."""

    name: str
    about: str
    plants: tuple[Plant, ...]
    invariants: tuple[str, ...]


def _lua(script: str, old: str, new: str) -> tuple[Plant, ...]:
    return (Lua(script, old, new),)


def _code(place: str, old: str, new: str) -> tuple[Plant, ...]:
    return (Code(place, old, new),)


SCRIPTS: Final = (
    Mutant(
        "completion-without-fence",
        "complete.lua takes the end of an attempt that is not current",
        _lua("complete", "if current ~= tonumber(ARGV[2]) and not gives_up then", "if false then"),
        ("I3", "I4", "I12", "conservation"),
    ),
    Mutant(
        "completion-twice",
        "complete.lua accepts the end of a job that is done",
        _lua("complete", "if held[4] == 'done' then", "if false then"),
        ("I3", "I12", "conservation"),
    ),
    Mutant(
        "completion-keeps-the-lease",
        "complete.lua does not free the slot",
        _lua("complete", "redis.call('ZREM', KEYS[2], ARGV[1] .. ':' .. ARGV[2])", ""),
        ("I5",),
    ),
    Mutant(
        "completion-frees-another",
        "complete.lua frees the slot of whoever's lease runs out first",
        _lua(
            "complete",
            "redis.call('ZREM', KEYS[2], ARGV[1] .. ':' .. ARGV[2])",
            "local first = redis.call('ZRANGE', KEYS[2], '0', '0')\n"
            "if first[1] then redis.call('ZREM', KEYS[2], first[1]) end",
        ),
        ("I2", "I5"),
    ),
    Mutant(
        "claim-ignores-slots",
        "claim.lua gives a slot whether there is one or not",
        _lua("claim", "if live < slots then", "if true then"),
        ("I2",),
    ),
    Mutant(
        "claim-counts",
        "claim.lua counts what it gave and never what came back",
        _lua(
            "claim",
            "local live = redis.call('ZCARD', leases)",
            "local live = redis.call('ZCARD', leases)\n"
            "    local taken = redis.call('HINCRBY', KEYS[2 + candidates + i], 'taken', '1')\n"
            "    live = taken - 1",
        ),
        ("I5", "I15", "I16"),
    ),
    Mutant(
        "claim-keeps-lapsed-leases",
        "claim.lua counts leases that have run out",
        _lua("claim", "redis.call('ZREMRANGEBYSCORE', leases, '-inf', lapsed)", ""),
        ("I5", "I15"),
    ),
    Mutant(
        "claim-compares-expiry-wrongly",
        "claim.lua takes a living claim for one that has run out",
        _lua("claim", "if held[1] and tonumber(held[1]) >= now then",
             "if held[1] and tonumber(held[1]) < now then"),
        ("I1", "I2", "I3", "I5", "I12", "conservation"),
    ),
    Mutant(
        "claim-not-idempotent",
        "claim.lua takes the repeat of a claim for somebody else's",
        _lua("claim", "if held[7] == token and attempt == expected + 1 and not done then",
             "if false then"),
        ("I3", "I5", "I10", "I11", "I16", "conservation"),
    ),
    Mutant(
        "claim-of-what-is-done",
        "claim.lua gives a slot to a job that is done",
        _lua("claim", "if not again and (done or expected == 0 or attempt > expected) then",
             "if not done and (expected == 0 or attempt > expected) then"),
        ("I3", "I5", "I12", "conservation"),
    ),
    Mutant(
        "claim-of-a-moved-session",
        "claim.lua gives a slot to an instance that the session has left",
        _lua("claim", "and session[2] ~= owner then", "and false then"),
        ("I12",),
    ),
    Mutant(
        "completion-of-a-moved-session",
        "complete.lua takes the end from an instance that the session has left",
        _lua("complete", "and session[2] ~= ARGV[6] then", "and false then"),
        ("I12",),
    ),
    Mutant(
        "claim-without-lease",
        "claim.lua gives slots and writes no lease down",
        _lua("claim", "redis.call('ZADD', leases, string.format('%.0f', now + tonumber(ARGV[5])"
             " * 1000),\n    job .. ':' .. attempt)", ""),
        ("I2",),
    ),
    Mutant(
        "lost-node-keeps-its-leases",
        "node_gone.lua leaves the leases of a node that is gone",
        _lua("node_gone", "redis.call('DEL', KEYS[1])", ""),
        ("I5",),
    ),
    Mutant(
        "lost-node-stays-ready",
        "node_gone.lua does not mark the node, so that its slots are given on",
        _lua("node_gone", "redis.call('HSET', KEYS[2], 'health', 'offline')", ""),
        ("I10",),
    ),
    Mutant(
        "release-of-another",
        "release_lease.lua frees the lease that was given last",
        _lua(
            "release_lease",
            "redis.call('ZREM', KEYS[k], member)",
            "local all = redis.call('ZRANGE', KEYS[k], '-1', '-1')\n"
            "if all[1] then redis.call('ZREM', KEYS[k], all[1]) end",
        ),
        ("I2", "I5"),
    ),
    Mutant(
        "presence-sees-nobody-gone",
        "presence.lua tells of no instance whose sign has expired, and nobody looks itself",
        (Lua("presence", "return {gone,", "return {{},"),
         Code("presence:Presence._silent", "asked_ns - at_ns > limit_ns", "False")),
        ("I4",),
    ),
    Mutant(
        "owner-never-changes",
        "own.lua respects the instance that a session was at before",
        _lua("own", "and ARGV[3] ~= 'take' then", "then"),
        ("I3", "I6", "I16"),
    ),
    Mutant(
        "renewal-shortens",
        "renew.lua ends the leases that it is to extend",
        _lua("renew", "local expiry = now + tonumber(ARGV[1]) * 1000", "local expiry = now"),
        ("I2",),
    ),
    Mutant(
        "heartbeat-of-half",
        "heartbeat_keep.lua stores one slot less than there is",
        _lua("heartbeat_keep", "put(KEYS[1], 'slots', ARGV[1],",
             "put(KEYS[1], 'slots', tostring(tonumber(ARGV[1]) - 1),"),
        ("I5",),
    ),
    Mutant(
        "restore-overwrites",
        "restore.lua writes over what the store knows better",
        (
            Lua("restore", "if held[4] == 'done' or tonumber(held[3]) > attempt or other then",
                "if false then"),
            Lua("restore", "if not known or done or tonumber(held[3]) < attempt then",
                "if true then"),
        ),
        ("I2", "I3", "I4", "I5", "I12", "I16", "conservation"),
    ),
)  # fmt: skip

CORE: Final = (
    Mutant(
        "leases-never-renewed",
        "nobody renews the lease of a job that takes long",
        _code("leases:Leases.renew", 'if self._policy.slots != "lease":', "if True:"),
        ("I2",),
    ),
    Mutant(
        "lost-leases-only-counted",
        "a slot that the store does not know any more is not taken again",
        _code("leases:Leases._lost", "if not one.is_held:", "if True:"),
        ("I2",),
    ),
    Mutant(
        "waiters-look-nowhere-else",
        "who waits does not look for slots that other instances have given back",
        _code("recovery:Recovery._look_at_waiting", "await self.pump(blind=True)", "pass"),
        ("I15",),
    ),
    Mutant(
        "a-nodes-failure-is-final",
        "a job that a node could not do is not tried elsewhere",
        _code("results:ResultHandler._may_retry", 'policy.node_failure == "retry"', "False"),
        ("I15",),
    ),
    Mutant(
        "lost-node-not-told",
        "the store is not told of a node whose socket has closed",
        _code("recovery:Recovery.node_lost",
              "freed = since_ns is not None and await self._tell_gone(node_id, since_ns)",
              "freed = False"),
        ("I10",),
    ),
    Mutant(
        "no-redispatch",
        "the jobs of a node that is lost wait for their timeout",
        _code("recovery:Recovery.node_lost",
              "if job is not None and not job.ended and job.node_id == node_id:", "if False:"),
        ("I10",),
    ),
    Mutant(
        "last-come-first-served",
        "who came last in line is served first",
        _code("jobs:PendingQueue.line", "iter(self._queues.get(pair, {}).values())",
              "reversed(self._queues.get(pair, {}).values())"),
        ("I15",),
    ),
    Mutant(
        "freed-slots-wake-nobody",
        "a slot that was given back waits until somebody happens to look",
        _code("recovery:Recovery.slot_freed", "if len(self._state.pending)", "if False"),
        ("I15",),
    ),
    Mutant(
        "newcomers-first",
        "who comes now asks for a slot though others wait",
        _code("claims:ClaimedCreation._first_claim",
              "while all(other.is_picky for other in self._state.pending.line(job.request.pair)):",
              "while True:"),
        ("I15",),
    ),
    Mutant(
        "moved-session-not-owned",
        "an instance that a session has moved to does not say so at once",
        _code("presence:Presence.session_moved",
              'await self._store.own(op, "session", session_id)', "pass"),
        ("I12",),
    ),
    Mutant(
        "tries-not-counted",
        "a job is tried again and again",
        _code("recovery:Recovery._try_others", "job.failovers += 1", "pass"),
        ("I15",),
    ),
    Mutant(
        "waiters-never-looked-at",
        "a job in line is never given a slot",
        _code("recovery:Recovery._pump_once", "for pair in self._state.pending.pairs():",
              "for pair in []:"),
        ("I15",),
    ),
    Mutant(
        "no-timeouts",
        "a job that is not answered is waited for for ever",
        _code("recovery:Recovery._overdue", "return now - job.dispatched_ns > limit * MS",
              "return False"),
        ("I3", "conservation"),
    ),
    Mutant(
        "slot-kept-at-a-retry",
        "the slot of an attempt that is given up is not given back",
        _code("recovery:Recovery._find_another", "await self._dispatcher.give_back(op, job)",
              "job.reserved = False"),
        ("I5",),
    ),
    Mutant(
        "repeats-forgotten",
        "no result is remembered",
        _code("results:ResultHandler._note_seen",
              "self._state.seen_results.setdefault(self._seen_key(result), self._runtime.now())",
              "return"),
        ("I12",),
    ),
    Mutant(
        "no-second-look",
        "what changed while the store was asked is not looked at again",
        _code("results:ResultHandler._process",
              "why_not = self._refusal(job, result) or self._overtaken(result)", 'why_not = ""'),
        ("I4", "I12", "failure", "conservation"),
    ),
    Mutant(
        "any-attempt-counts",
        "the result of an older attempt is taken for the current one's",
        _code("results:ResultHandler._refusal",
              "fails_again or (job.attempt, job.node_id) != (result.attempt_id, result.node_id)",
              "False"),
        ("I4", "I12"),
    ),
    Mutant(
        "moved-is-accepted",
        "the store's word that a session has moved is not heeded",
        _code("results:ResultHandler._report_end", "return verdict",
              'return "ACCEPTED" if verdict == "MOVED" else verdict'),
        ("I3", "I6", "I12", "conservation"),
    ),
    Mutant(
        "order-ignored",
        "answers leave as they come",
        _code("scheduler:_queue_of", "Discipline(policy.result_order)",
              'Discipline("fcfs")'),
        ("I6",),
    ),
    Mutant(
        "answered-twice",
        "nobody remembers who has been answered",
        _code("delivery:Delivery._is_first", "if key in session.answered:", "if False:"),
        ("I3",),
    ),
    Mutant(
        "results-not-forwarded",
        "a result for another instance is taken for sent, and is not",
        _code("results:ResultHandler._forward",
              "return await self._runtime.links.to_instance(steps.INBOX_APPEND, op, owner, event)",
              "return True"),
        ("I4",),
    ),
    Mutant(
        "forwarded-results-dropped",
        "a result from another instance is not looked at",
        _code("scheduler:Scheduler._take_forwarded",
              'self.runtime.start(result, name="forwarded result")', "result.close()"),
        ("I4",),
    ),
    Mutant(
        "assignments-dropped",
        "an assignment from another instance does not reach its node",
        _code("scheduler:Scheduler._pass_on",
              "self.runtime.links.to_node(event.node_id, message)", "return"),
        ("I16",),
    ),
    Mutant(
        "inbox-not-adopted",
        "nobody reads what an instance that is gone has not read",
        _code("presence:Presence.read_inbox_of", "if not sessions:", "if True:"),
        ("I3", "I4", "I16"),
    ),
    Mutant(
        "negative-cached",
        "who was nowhere once is taken to be nowhere for ever",
        _code(
            "store:CellStore.owner_of",
            'return value.decode() if isinstance(value, bytes) else ""',
            'known = self._store.__dict__.setdefault("nowhere", {})\n'
            "    if not isinstance(value, bytes):\n"
            "        known[kind, name] = None\n"
            '    return "" if (kind, name) in known else value.decode()',
        ),
        ("I3", "I4", "I16"),
    ),
    Mutant(
        "session-wedged",
        "after a cut the session takes its index for still being cut",
        _code("session:SessionActor.try_finalize", "self.segmenter.done()", "pass"),
        ("I7", "I8"),
    ),
    Mutant(
        "last-words-dropped",
        "what was said last before a session's end is not cut",
        _code("session:SessionActor._close",
              "await self.try_finalize(Trigger.SESSION_CLOSE)", "pass"),
        ("I7", "I8"),
    ),
    Mutant(
        "silence-never-cuts",
        "the timer of silence is not set",
        _code("session:SessionActor._arm_timer", "self._timer.set(deadline)", "pass"),
        ("I7", "I13"),
    ),
)  # fmt: skip

MUTANTS: Final = {mutant.name: mutant for mutant in (*SCRIPTS, *CORE)}
