#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""SIGKILL of a durable TPM's engine, of vtpmd, and of both, at random moments while its tenant works through a real node.

kill_rounds_test.py [--seed N] [--rounds N]

After each round everything is brought back, and the tenant's TPM must have all that it acknowledged; its neighbours are
untouched and no process is left. Run by CTest as root, with VTPM_BIN_DIR and VTPM_SOURCE_DIR; VTPM_LONG=1 runs 2,000
rounds. A failure names its round; moments are random, so a seed brings the same work, not the same end."""

import argparse
import collections
import concurrent.futures
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.environ["VTPM_SOURCE_DIR"], "tests", "support"))
import vtpm_host  # noqa: E402
from tenant import Gone, Tenant  # noqa: E402

VICTIMS = ["engine", "vtpmd", "both"]
# Since Linux 6.9 another engine can go on with the node of a dead one.
NODES_OUTLIVE = tuple(map(int, os.uname().release.split("-")[0].split(".")[:2])) >= (6, 9)


def processes_of(directory):
    """Processes that run a program of this directory."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            program = os.readlink(f"/proc/{pid}/exe")
        except OSError:
            continue
        if program.startswith(directory + "/"):
            found.append((int(pid), os.path.basename(program)))
    return found


class Rounds:
    def __init__(self, host, seed):
        self.host, self.random = host, random.Random(seed)
        self.counts, self.serial = collections.Counter(), 0
        self.target = self.durable_neighbour = self.ephemeral_neighbour = None
        # vtpmd is to end with the thread that started it: one that lives as long as the test.
        self.starter = concurrent.futures.ThreadPoolExecutor(max_workers=1)

    def start_vtpmd(self):
        """In the background; the result is a future."""
        return self.starter.submit(self.host.start)

    def ctl(self, *arguments):
        done = self.host.ctl(*arguments)
        if done.returncode != 0:
            raise AssertionError(f"vtpmctl {' '.join(arguments)}: {done.stderr}{self.host.log_text()[-3000:]}")
        return done.stdout.strip()

    def inspect(self, instance):
        return json.loads(self.ctl("--json", "inspect", instance))

    def make(self, *options):
        """An instance with a node, and its tenant."""
        self.serial += 1
        instance = self.ctl("create", *options)
        path = os.path.join(self.host.directory, f"node-{self.serial}")
        self.ctl("attach", instance, "--path", path)
        tenant = Tenant(random.Random(self.random.getrandbits(64)), path)
        tenant.open()
        tenant.instance, tenant.pid = instance, self.inspect(instance)["pid"]
        tenant.resets = tenant.reset_count()
        return tenant

    def set_up(self, durable):
        self.ephemeral_neighbour = self.make()
        if durable:
            self.target = self.make("--durable", "--name", "target")
            self.durable_neighbour = self.make("--durable", "--name", "neighbour")
        for tenant in self.tenants():
            for _ in range(12):
                tenant.work()

    def tenants(self):
        known = (self.target, self.durable_neighbour, self.ephemeral_neighbour)
        return [tenant for tenant in known if tenant is not None]

    # ---- a round

    def kill(self, victim, after):
        time.sleep(after)
        pids = {"engine": [self.target.pid], "vtpmd": [self.host.daemon.pid]}
        order = pids.get(victim) or pids["engine"] + pids["vtpmd"]
        if self.random.random() < 0.5:
            order.reverse()
        for pid in order:
            os.kill(pid, signal.SIGKILL)
        if victim != "engine":
            self.host.daemon.wait()
            self.started = self.start_vtpmd()  # while the tenant waits for its answer, as a service manager does
        self.killed.set()

    def round(self, number):
        victim = VICTIMS[number % len(VICTIMS)]
        self.counts[victim] += 1
        self.killed = threading.Event()
        killer = threading.Thread(target=self.kill, args=(victim, self.random.uniform(0, 0.025)))
        killer.start()
        rest = 5  # changes after a death that the tenant need not notice
        try:
            while rest:
                rest -= self.killed.is_set()
                self.target.work()
        except Gone:
            self.counts["tenant saw the end"] += 1
        finally:
            killer.join()
        engine_died = victim != "vtpmd"
        self.bring_back(engine_died, victim != "engine")
        self.target.check(f"round {number}, SIGKILL of {victim}")
        self.target.check_lockout()
        self.check_neighbours(vtpmd_died=victim != "engine")

    def ephemeral_round(self, number):
        if number % 2:
            self.ephemeral_engine_dies()
        else:
            self.ephemeral_outlives_vtpmd()

    def ephemeral_engine_dies(self):
        """An ephemeral TPM dies with its engine: its tenant gets an error, not silence, and the instance is reported failed."""
        self.counts["engine of an ephemeral one"] += 1
        victim = self.make()
        killer = threading.Timer(self.random.uniform(0, 0.015), os.kill, (victim.pid, signal.SIGKILL))
        killer.start()
        try:
            while True:
                victim.work()
        except Gone:
            pass
        finally:
            killer.join()
        vtpm_host.wait_for(lambda: self.inspect(victim.instance)["state"] == "failed", "the instance to be reported failed")
        victim.close()
        self.ctl("destroy", victim.instance)
        if os.path.exists(victim.path):
            raise AssertionError("its node is left")
        self.check_neighbours(vtpmd_died=False)

    def ephemeral_outlives_vtpmd(self):
        """vtpmd dies and comes back; the tenant of an ephemeral TPM works on, and no command of it fails."""
        self.counts["vtpmd under an ephemeral one"] += 1
        tenant = self.ephemeral_neighbour
        killer = threading.Timer(self.random.uniform(0, 0.015), os.kill, (self.host.daemon.pid, signal.SIGKILL))
        killer.start()
        before = tenant.commands
        while self.host.daemon.poll() is None or tenant.commands < before + 40:
            tenant.work()
        killer.join()
        self.start_vtpmd().result()
        for _ in range(20):
            tenant.work()
        vtpm_host.wait_for(lambda: self.inspect(tenant.instance)["state"] == "running", "vtpmd to know the instance again")
        if self.inspect(tenant.instance)["pid"] != tenant.pid or tenant.reset_count() != tenant.resets:
            raise AssertionError("the engine is another one, or its TPM was reset")
        tenant.check("vtpmd was killed")

    def bring_back(self, engine_died, vtpmd_died):
        if vtpmd_died:
            self.started.result()
        old = self.target.pid
        vtpm_host.wait_for(lambda: self.is_back(self.target, old if engine_died else None), "the instance to be back")
        self.reach(self.target)
        resets = self.target.reset_count()
        if self.target.pid != old and resets <= self.target.resets and not self.target.may_be_cleared():
            raise AssertionError(f"the engine is another one, but resetCount is {resets} after {self.target.resets}")
        if self.target.pid == old and resets != self.target.resets:
            raise AssertionError("the engine is the same, but resetCount has changed")
        self.target.resets = resets

    def is_back(self, tenant, but_not=None):
        seen = self.inspect(tenant.instance)
        if seen["state"] == "failed" and "not" in str(seen.get("retries", "")):
            raise AssertionError(f"the instance is given up: {seen}")
        if seen["state"] != "running" or seen["pid"] == but_not:
            return False
        tenant.pid = seen["pid"]
        return True

    def reach(self, tenant):
        """Its node answers; one that died with its servers is made again."""
        try:
            tenant.open()
            tenant.run("GetRandom", params=b"\0\1")
        except (OSError, Gone):
            if NODES_OUTLIVE:
                raise AssertionError("its node is dead") from None
            self.counts["node made again"] += 1
            tenant.close()
            if self.host.ctl("detach", tenant.instance, "--path", tenant.path).returncode != 0:
                subprocess.run(["umount", "-q", "-l", tenant.path], check=False)
                if os.path.exists(tenant.path):
                    os.unlink(tenant.path)
            self.ctl("attach", tenant.instance, "--path", tenant.path)
            tenant.open()
            tenant.run("GetRandom", params=b"\0\1")

    def check_neighbours(self, vtpmd_died):
        for tenant, durable in ((self.durable_neighbour, True), (self.ephemeral_neighbour, False)):
            if tenant is None:
                continue
            old = tenant.pid
            if not vtpmd_died:  # its engine, its open file and its state are what they were
                if self.inspect(tenant.instance)["pid"] != old:
                    raise AssertionError("a neighbour's engine is another one")
                tenant.check("neighbour")
                tenant.work()
                continue
            if not durable and self.inspect(tenant.instance)["pid"] != old:
                raise AssertionError("an ephemeral neighbour did not outlive vtpmd")
            vtpm_host.wait_for(lambda tenant=tenant: self.is_back(tenant), "a neighbour to be back")
            self.reach(tenant)
            tenant.check("neighbour after vtpmd's end")

    def tear_down(self):
        for tenant in self.tenants():
            tenant.close()
            self.ctl("destroy", tenant.instance)
        self.host.stop()
        vtpm_host.wait_for(lambda: not processes_of(self.host.bin), "the last process to end")


def makes_durable(host):
    made = host.ctl("create", "--durable", "--name", "probe")
    if made.returncode == 0:
        host.ctl("destroy", made.stdout.strip())
    elif "not built yet" not in made.stderr:
        raise AssertionError(made.stderr)
    return made.returncode == 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=2000 if os.environ.get("VTPM_LONG") else 50)
    options = parser.parse_args()
    if os.geteuid() != 0 or not os.path.exists("/dev/fuse") or shutil.which("setpriv") is None:
        print("SKIPPED: needs root, /dev/fuse and setpriv")
        return 77
    host = vtpm_host.Host()
    rounds = Rounds(host, options.seed)
    number = 0
    try:
        rounds.start_vtpmd().result()
        durable = makes_durable(host)
        rounds.set_up(durable)
        for number in range(options.rounds):
            if durable and number % 10 < 8:
                rounds.round(number)
            else:
                rounds.ephemeral_round(number)
        rounds.tear_down()
    except BaseException:
        print(f"failed in round {number} of seed {options.seed}; the end of vtpmd's log:\n{host.log_text()[-4000:]}")
        raise
    finally:
        for pid, _ in processes_of(host.bin):  # only ever what this test started
            if host.daemon is None or pid != host.daemon.pid:
                os.kill(pid, signal.SIGKILL)
        for name in os.listdir(host.directory):
            if name.startswith("node-"):
                subprocess.run(["umount", "-q", "-l", os.path.join(host.directory, name)], check=False)
        host.close()
    print(f"{options.rounds} rounds; nothing lost, nothing unreadable")
    if durable:
        print(f"{rounds.target.commands} commands acknowledged, {rounds.target.clears} of them TPM2_Clear")
    else:
        print("this vtpmd makes no durable instances: only ephemeral ones were killed")
    print(", ".join(f"{what}: {count}" for what, count in sorted(rounds.counts.items())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
