#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The same commands to a swtpm, and to the managed and the raw nodes of vTPMs: same response codes, same shapes.

differential_test.py [--seed N] [--count N] [--stream N] [--nodes A,B...] [--keep-going] [--verbose]

A run is streams of commands, each on new TPMs; stream number N of a seed is always the same. Of a stream that fails the
log is printed, and the shortest part of it that still fails. Run by CTest as root, with VTPM_BIN_DIR and VTPM_SOURCE_DIR;
VTPM_LONG=1 runs 100,000 commands."""

import argparse
import collections
import os
import shutil
import sys
import time

sys.path.insert(0, os.path.join(os.environ["VTPM_SOURCE_DIR"], "tests", "support"))
import compare  # noqa: E402
import tpm2  # noqa: E402
import vtpm_host  # noqa: E402
from endpoints import Space, Swtpm, Vtpm  # noqa: E402
from generator import Generator  # noqa: E402
from stream import Missing, Replica  # noqa: E402

STREAM = 400  # commands
AUTH_FAIL = 0x8E  # which counts for the dictionary attack logic
RETRY = 0x922  # once, after which the TPM has noted that the dictionary attack logic is in use
FAILURE = 0x101  # TPM_RC_FAILURE: libtpms is in failure mode and does nothing more


class Difference(Exception):
    def __init__(self, number, text):
        super().__init__(text)
        self.number = number


class Bench:
    """A swtpm and the nodes, new for each stream."""

    def __init__(self, host, names):
        self.host, self.names, self.count = host, names, 0

    def __enter__(self):
        self.count += 1
        self.endpoints = [Swtpm(os.path.join(self.host.directory, f"swtpm-{self.count}"))]
        try:
            for name in self.names:
                self.endpoints.append(self.make(name))
        except BaseException:
            self.__exit__()
            raise
        return [Replica(endpoint) for endpoint in self.endpoints]

    def make(self, name):
        if name.startswith("space"):
            directory = os.path.join(self.host.directory, f"{name}-{self.count}")
            return Space(os.path.join(vtpm_host.BIN, "space_server"), directory, name == "space-neighbour")
        return Vtpm(self.host, self.host.directory, name in ("raw", "durable"), name == "neighbour", name == "durable")

    def __exit__(self, *_):
        for endpoint in self.endpoints:
            endpoint.close()


class Report:
    def __init__(self):
        self.tried, self.succeeded = collections.Counter(), collections.Counter()
        self.codes, self.meant, self.ended = collections.Counter(), collections.Counter(), collections.Counter()

    def count(self, step, response):
        name = tpm2.NAMES.get(response.code, "(no such command)")
        self.tried[name] += 1
        self.succeeded[name] += response.rc == 0
        self.codes[response.rc] += 1

    def print(self, verbose):
        total = sum(self.tried.values())
        print(f"{total} commands, {sum(self.succeeded.values())} succeeded ({100 * sum(self.succeeded.values()) // max(1, total)} %), "
              f"{len(self.codes)} different response codes")
        never = [n for n in tpm2.CC if not self.succeeded[n]]
        print("never succeeded: " + (", ".join(f"{n} ({self.tried[n]} tries)" for n in never) or "none"))
        for reason, count in self.meant.items():
            print(f"meant differences: {count} x {reason}")
        for reason, count in self.ended.items():
            print(f"streams ended early: {count} x {reason}")
        if verbose:
            for name in sorted(self.tried, key=self.tried.get, reverse=True):
                print(f"  {name:28}{self.tried[name]:8}{100 * self.succeeded[name] // self.tried[name]:5} %")
            print("  " + ", ".join(f"{code:x}: {count}" for code, count in self.codes.most_common()))


def run_step(step, replicas, report=None):
    """The swtpm's response; Difference when another TPM does not agree."""
    responses = [step.run(replica) for replica in replicas]
    if report:
        report.count(step, responses[0])
    for replica, response in zip(replicas[1:], responses[1:]):
        found = compare.difference(step, responses[0], replicas[0], response, replica)
        if found is None:
            continue
        reason = compare.is_meant(found[0], step, responses[0], response, replica)
        if reason is None:
            raise Difference(0, found[1])
        if report:
            report.meant[reason] += 1
        if reason != compare.ROOM:
            if reason == compare.NOT_EXCLUSIVE and response.rc != responses[0].rc:
                raise Parted(reason)
            continue
        replica.endpoint.realigned = True  # and so were its commands more, or fewer: no audit session is exclusive then
        realign(step, replicas, replica, response)
    if responses[0].rc == 0 and responses[0].handle is not None and (step.change_bytes or step.change_params):
        for replica, response in zip(replicas, responses):  # an object that the model does not know
            if response.rc == 0:
                replica.flush(response.handle)
    return responses[0]


class Parted(Exception):
    """The TPMs' states differ from here on, by a difference that is meant: the stream ends."""


def realign(step, replicas, replica, response):
    """After a command that only one TPM had room for: away with what it made, and with what it did to sessions."""
    audited = any(use.attributes & tpm2.AUDIT for use in step.uses)  # a session is an audit session from then on
    if response.rc & 0xBF == AUTH_FAIL or response.rc == RETRY or response.rc == 0 and (audited or step.code == tpm2.CC["EvictControl"]):
        raise Parted("a command for which only one TPM had room changed more than objects and sessions")
    if response.rc != 0:
        return
    if step.code == tpm2.CC["ContextLoad"] and response.handle >> 24 in (0x02, 0x03):
        raise Parted("a session's context was loaded by one TPM only, and is used up there")
    if response.handle is not None:
        replica.flush(response.handle)
    for session in [use.session for use in step.uses if use.session is not None]:
        kept = next(use for use in step.uses if use.session is session).attributes & tpm2.CONTINUE
        for each in replicas:
            if not kept:
                each.flush(session.handle(each))
                step.flushed.append(session)
            elif session.session_kind == "policy":
                each.transceive(tpm2.command(tpm2.CC["PolicyRestart"], [(session.handle(each), b"")]))
        session.facts["ready"] = None


def describe(number, step, rc):
    return f"{number:5} {step.label():60} -> 0x{rc:x}"


def run_stream(bench, seed, count, report, log):
    """Steps of one stream; raises Difference. `log` gets (step, response code)."""
    generator = Generator(seed)
    with bench as replicas:
        for number in range(count):
            step = generator.next()
            log.append([step, None])
            try:
                response = run_step(step, replicas, report)
            except Missing:
                log.pop()
                continue
            except Parted as parted:
                report.ended[str(parted)] += 1
                return
            except Difference as difference:
                difference.number = number
                raise
            log[-1][1] = response.rc
            if response.rc == FAILURE:
                report.ended["libtpms' failure mode, in all TPMs alike, by " + step.label()] += 1
                return
            if response.rc == 0 and step.change_bytes and any(use.session for use in step.uses):
                report.ended["damage in a session's bytes was no error: what it wrote may differ from TPM to TPM"] += 1
                return
            generator.after(step, response)


def replay(bench, steps):
    """Runs steps again on new TPMs: the text of the first difference, or None."""
    with bench as replicas:
        for step in steps:
            try:
                run_step(step, replicas)
            except Missing:
                continue
            except Parted:
                return None
            except Difference as difference:
                return str(difference)
    return None


def shrink(bench, steps, what, seconds=60):
    """The last step, which differs, with as few before it as possible."""
    end, kept = time.monotonic() + seconds, list(steps)
    kind = what.split(":")[0]

    def differs(fewer):
        return (replay(bench, fewer) or "").split(":")[0] == kind

    if not differs(kept):
        return None
    size = len(kept) // 2
    while size:
        at = 0
        while at < len(kept) - 1 and time.monotonic() < end:
            fewer = kept[:at] + kept[min(at + size, len(kept) - 1):]
            if len(fewer) < len(kept) and differs(fewer):
                kept = fewer
            else:
                at += size
        size //= 2
    return kept


def report_failure(bench, seed, log, difference):
    print(f"\nDIFFERENCE in the stream of --stream {seed}, command {difference.number}: {difference}")
    for number, (step, rc) in enumerate(log[-25:], max(0, len(log) - 25)):
        print(describe(number, step, rc or 0))
    kept = shrink(bench, [step for step, _ in log], str(difference))
    if kept is None:
        print("it does not come again with the same commands: it depends on random values of the TPMs")
        return
    print(f"shrunk to {len(kept)} commands:")
    for number, step in enumerate(kept):
        print(f"{number:5} {step.label()}")
    with bench as replicas:
        for step in kept:
            try:
                run_step(step, replicas)
            except (Missing, Parted, Difference):
                pass
        for replica in replicas:
            print(f"the last, to {replica.name}: {replica.last.hex()}")


def reason_to_skip():
    if os.geteuid() != 0:
        return "device nodes need root"
    if not os.path.exists("/dev/fuse"):
        return "there is no /dev/fuse"
    if shutil.which("swtpm") is None or shutil.which("setpriv") is None:
        return "swtpm or setpriv is not installed"
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--count", type=int, default=100_000 if os.environ.get("VTPM_LONG") else 3000)
    parser.add_argument("--stream", type=int, help="only this stream, by the number that a failure printed")
    parser.add_argument("--nodes", default="managed,neighbour,raw,durable",
                        help="managed, raw; durable: the raw node of a durable TPM; neighbour: a managed node that another client "
                        "keeps busy; space and space-neighbour: the resource manager alone, over a swtpm")
    parser.add_argument("--keep-going", action="store_true", help="count the streams that differ, do not stop at the first")
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    why_not = reason_to_skip()
    if why_not:
        print("SKIPPED: " + why_not)
        return 77
    print(f"seed {options.seed}, {options.count} commands per node")
    host, report, failures = vtpm_host.Host(), Report(), 0
    try:
        host.start()
        bench = Bench(host, options.nodes.split(","))
        streams = [options.stream] if options.stream is not None else [
            options.seed * 1_000_000 + n for n in range((options.count + STREAM - 1) // STREAM)]
        for seed in streams:
            log = []
            try:
                run_stream(bench, seed, min(STREAM, options.count), report, log)
            except Difference as difference:
                failures += 1
                report_failure(bench, seed, log, difference)
                if not options.keep_going:
                    break
        report.print(options.verbose)
    finally:
        host.close()
    print(f"{failures} of {len(streams)} streams differ" if failures else "no difference")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
