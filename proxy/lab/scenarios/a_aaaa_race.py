"""A and AAAA leave on one new flow at the same moment, and one of them gets lost."""

import os
from dataclasses import replace
from statistics import median

from proxy.lab import libc_clients
from proxy.lab.cluster import Cluster
from proxy.lab.dns_case import DnsCase
from proxy.lab.libc_clients import LIBCS
from proxy.lab.lost_half import LostHalf, first_aaaa, second_of_a_flow
from proxy.lab.outcome import Outcome, Question, tally_questions
from proxy.lab.scenario import LOSES_NOTHING, Expectation, Run, Scenario

RACED, NAME = "race.example.com", "{number:010}.example.com"
RACE, AAAA = "the late half", "the first AAAA"
PATIENCE = 2.0
"""Seconds: less than the 2.5 after which musl asks again, more than any lookup takes in which nothing is lost."""
RATE = 20
ANSWER_MS = 5
"""Until a DNS pod answers, as one on another node would: the late half is not to find its flow answered already."""


class AAaaaRace(Scenario):
    name = "a_aaaa_race"
    title = "A and AAAA at once, one of them lost"
    source = "kubernetes#56903"
    story = (
        "glibc and musl send A and AAAA of a name one right after the other from one socket. Where the two are "
        "the first of a new flow to a Service and pass connection tracking at the same time, each is given an "
        "endpoint of its own, and older kernels throw one away; its client asks again after 5 s (glibc) or 2.5 s "
        "(musl). First a pod has it happen: it sends A and AAAA from one new socket at one moment on two CPUs, "
        "and the kernel's counters tell whether halves get lost (insert_failed) or clashes are resolved "
        "(clash_resolve). Then programs built with glibc and with musl look names up while a rule makes a half "
        "vanish between the node and the DNS pods: first whatever follows a new flow's first packet before that "
        "is answered, which is what such a kernel does to a late half, but each time; then the first AAAA "
        "question for each name, whoever asks it. Lost is a half without an answer, and a lookup of more than "
        f"{PATIENCE:g} s; the worst outage is the slowest lookup. Sidestep asks for AAAA after A, each from a "
        "socket of its own, so the first rule finds nothing. By the second it loses as many questions as the "
        "others, and asks again after 250 ms at most."
    )
    needs = libc_clients.PROGRAMS
    on_kube_proxy = (
        Expectation("loses halves by both rules", lambda outcome: all(_lost_halves(outcome))),
        Expectation(
            f"makes as many lookups wait for more than {PATIENCE:g} s as lost a half",
            lambda outcome: outcome.figures["slow lookups"] == sum(_lost_halves(outcome)),
        ),
    )
    on_sidestep = (
        LOSES_NOTHING,
        Expectation(
            "loses a half of each lookup by the second rule alone",
            lambda outcome: _lost_halves(outcome) == (0, outcome.figures["lookups"] / 2),
        ),
    )

    def run(self, cluster: Cluster, run: Run) -> Outcome:
        rounds, seconds = (200, 0.5) if run.short else (1000, 2.0)
        programs = {libc: libc_clients.built(libc) for libc in LIBCS}
        pods = str(cluster.node.pod_network)
        rules = {RACE: second_of_a_flow(pods), AAAA: first_aaaa(pods, NAME.format(number=0))}
        figures: dict[str, float] = {}
        lookups: list[Question] = []
        with DnsCase(cluster, run) as case:
            case.client.etc("resolv.conf", f"nameserver {case.target.partition(':')[0]}\n")
            raced, note = _race(case, run, rounds, figures)
            for pod in case.pods:
                pod.server.slow(ANSWER_MS)
            for what, rule in rules.items():
                run.say(f"programs look names up, lost is {what}")
                with LostHalf(cluster.node, rule) as lost:
                    asking = {
                        libc: case.traffic.program_lookups(
                            case.client, programs[libc], name=NAME, rate=RATE, seconds=seconds
                        )
                        for libc in LIBCS
                    }
                    for one in asking.values():
                        one.start()
                    for libc, one in asking.items():
                        one.wait(seconds + 60)
                        found = one.questions()
                        lookups += found
                        waits = [lookup.milliseconds for lookup in found if lookup.answered_ns]
                        if waits:
                            figures |= {
                                f"{what}: {libc} p50 ms": median(waits),
                                f"{what}: {libc} slowest ms": max(waits),
                            }
                    figures[f"{what}: halves lost"] = lost.count()
        figures["lookups"] = len(lookups)
        figures["slow lookups"] = sum(1 for one in lookups if not 0 < one.milliseconds <= PATIENCE * 1000)
        counted = tally_questions([*raced, *lookups], within=PATIENCE, notes=[note])
        slowest = max(one.milliseconds for one in lookups)
        return replace(counted, figures=figures, worst_outage_ms=max(0.0, slowest))


def _lost_halves(outcome: Outcome) -> tuple[float, float]:
    return outcome.figures[f"{RACE}: halves lost"], outcome.figures[f"{AAAA}: halves lost"]


def _race(case: DnsCase, run: Run, rounds: int, figures: dict[str, float]) -> tuple[list[Question], str]:
    """The halves, and what the kernel did with them; its counters go to the figures."""
    if len(os.sched_getaffinity(0)) < 2:
        return [], "not here: a race takes two CPUs"
    run.say("A and AAAA at one moment from two CPUs")
    conntrack = case.cluster.conntrack()
    before = conntrack.statistics()
    racing = case.traffic.race(case.client, case.target, name=RACED, rounds=rounds)
    racing.start()
    racing.wait(120)
    raced = racing.questions()
    after = conntrack.statistics()
    found = {name: after.get(name, 0) - before.get(name, 0) for name in ("insert_failed", "clash_resolve")}
    lost = sum(1 for half in raced if not half.answered_ns)
    figures |= {"race: pairs": rounds, "race: halves lost": lost, **{f"race: {k}": v for k, v in found.items()}}
    return raced, told(rounds, lost, **found)


def told(pairs: int, lost: int, insert_failed: int, clash_resolve: int) -> str:
    """What the kernel did with so many pairs, in words."""
    if lost or insert_failed:
        return f"this kernel loses halves: {lost} of {pairs} pairs lost one, insert_failed {insert_failed}"
    if clash_resolve:
        return f"not here: of {pairs} pairs {clash_resolve} clashed, this kernel resolved it and lost no half"
    return f"not here: of {pairs} pairs none clashed"
