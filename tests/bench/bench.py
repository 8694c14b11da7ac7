#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Measures the vTPM beside swtpm, in one run, and prints tables with ratios. It reports; it judges nothing.

usage: bench.py [--json] [--quick] [--instances N] [--iterations N] BIN_DIR
"""

import argparse
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

import sharing

GET_RANDOM = bytes.fromhex("80010000000c0000017b0020")
# The user that vtpmd runs as; any without rights will do.
DAEMON_UID = 65534
LABELS = {"vtpm": "vTPM, FUSE node", "socket": "vTPM, Unix socket", "unix": "swtpm, Unix socket", "tcp": "swtpm, TCP socket",
          "held": "swtpm, held connection"}
LATENCY_NOTE = ("Each through tpm2-tss: its device TCTI for the node, its swtpm TCTI for swtpm's sockets. That one connects anew\n"
                "for every command; 'held connection' is swtpm without that cost, and so is the vTPM's socket.")


def wait_for(what, holds, seconds=20):
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            raise RuntimeError(f"no {what} after {seconds} s")
        time.sleep(0.0005)


def answers(connection):
    """Sends GetRandom(32) and reads its response."""
    connection.sendall(GET_RANDOM)
    if len(connection.recv(4096)) != 44:
        raise RuntimeError("swtpm: no answer to GetRandom")


class Processes:
    """What was started, to be stopped by its own id."""

    def __init__(self, log):
        self.log, self.running = log, []

    def start(self, *args):
        p = subprocess.Popen(args, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        self.running.append(p)
        return p

    def stop(self, p):
        self.running.remove(p)
        p.send_signal(signal.SIGTERM)
        try:
            p.wait(20)
        except subprocess.TimeoutExpired:
            p.kill()
            p.wait()

    def stop_all(self):
        for p in reversed(list(self.running)):
            self.stop(p)


class Vtpm:
    """A vtpmd of its own, as an ordinary user, with a software anchor."""

    def __init__(self, bin_dir, work, processes):
        self.bin, self.runtime, self.nodes = bin_dir, os.path.join(work, "run"), os.path.join(work, "nodes")
        self.attached, self.count = [], 0
        self.cpus = None  # where TPMs run, if not where the scheduler puts them
        self.state = state = os.path.join(work, "state")
        for folder in (self.runtime, state):
            os.mkdir(folder)
            os.chown(folder, DAEMON_UID, DAEMON_UID)
        os.mkdir(self.nodes)
        # Copies: the build tree may be closed to other users.
        programs = os.path.join(work, "bin")
        os.mkdir(programs)
        for name in ("vtpmd", "vtpm-engine"):
            shutil.copy(os.path.join(bin_dir, name), programs)
        self.daemon = processes.start("setpriv", "--pdeathsig", "KILL", f"--reuid={DAEMON_UID}", f"--regid={DAEMON_UID}",
                                      "--clear-groups",
                                      os.path.join(programs, "vtpmd"), "--state-dir", state, "--runtime-dir", self.runtime,
                                      "--anchor", "embedded",
                                      # What a command costs is measured, not what a tenant is granted.
                                      "--limit", "commands_per_second=0", "--limit", "busy_us_per_second=0")
        wait_for("vtpmd", self.answers)

    def answers(self):
        if self.daemon.poll() is not None:
            raise RuntimeError(f"vtpmd ended with status {self.daemon.returncode}")
        return os.path.exists(os.path.join(self.runtime, "vtpmd.sock"))

    def ctl(self, *args):
        done = subprocess.run([os.path.join(self.bin, "vtpmctl"), "--runtime-dir", self.runtime, *args],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"vtpmctl {' '.join(args)}: {done.stderr.strip()}")
        return done.stdout.strip()

    def create(self):
        return self.ctl("create")

    def create_durable(self):
        """None where vtpmd makes no durable instances."""
        try:
            return self.ctl("create", "--durable", "--name", "durable")
        except RuntimeError:
            return None

    def slot_size(self, instance):
        """What a durable TPM writes at a commit, in bytes."""
        return os.path.getsize(os.path.join(self.state, "instances", instance, "slot-a"))

    def attach(self, instance, *options):
        self.count += 1
        path = os.path.join(self.nodes, str(self.count))
        self.ctl("attach", instance, "--path", path, *options)
        self.attached.append((instance, path))
        if self.cpus:
            os.sched_setaffinity(self.engine_pid(instance), self.cpus)
        return path

    def engine_pid(self, instance):
        return json.loads(self.ctl("--json", "inspect", instance))["pid"]

    def release(self):
        for instance, path in self.attached:
            self.ctl("detach", instance, "--path", path)
            self.ctl("destroy", instance)
        self.attached = []

    def to_first_response(self):
        began = time.perf_counter()
        node = os.open(self.attach(self.create()), os.O_RDWR | os.O_CLOEXEC)
        os.write(node, GET_RANDOM)
        response = os.read(node, 4096)
        took = time.perf_counter() - began
        os.close(node)
        if len(response) != 44:
            raise RuntimeError("vTPM: no answer to GetRandom")
        return took


class Swtpm:
    """swtpm processes with states of their own, and a certificate authority for swtpm_setup."""

    def __init__(self, work, processes):
        self.work, self.processes, self.count = os.path.join(work, "swtpm"), processes, 0
        os.mkdir(self.work)
        self.config = self.write_config()

    def write_config(self):
        ca = os.path.join(self.work, "ca")
        os.mkdir(ca)
        files = {
            "localca.conf": f"statedir = {ca}\nsigningkey = {ca}/signkey.pem\nissuercert = {ca}/issuercert.pem\n"
                            f"certserial = {ca}/certserial\n",
            "localca.options": "--platform-manufacturer Bench\n--platform-version 1\n--platform-model Bench\n",
            "setup.conf": f"create_certs_tool = {shutil.which('swtpm_localca')}\n"
                          f"create_certs_tool_config = {self.work}/localca.conf\n"
                          f"create_certs_tool_options = {self.work}/localca.options\n",
        }
        for name, text in files.items():
            with open(os.path.join(self.work, name), "w") as f:
                f.write(text)
        return os.path.join(self.work, "setup.conf")

    def state(self):
        self.count += 1
        path = os.path.join(self.work, str(self.count))
        os.mkdir(path)
        return path

    def setup(self, state, *options):
        subprocess.run(["swtpm_setup", "--tpm2", "--tpmstate", state, "--config", self.config, "--runas", "root", "--ecc",
                        "--pcr-banks", "sha256", *options], stdout=self.processes.log, stderr=self.processes.log, check=True)

    def start(self, state, port=None):
        """Starts one; returns (process, path of its socket)."""
        path = os.path.join(state, "sock")
        server = [f"type=tcp,port={port}", f"type=tcp,port={port + 1}"] if port else [
            f"type=unixio,path={path}", f"type=unixio,path={path}.ctrl"]
        p = self.processes.start("swtpm", "socket", "--tpm2", "--tpmstate", f"dir={state}", "--flags",
                                 "not-need-init,startup-clear", "--server", server[0], "--ctrl", server[1])
        return p, path

    def connect(self, path):
        connection = socket.socket(socket.AF_UNIX)
        wait_for("swtpm", lambda: connection.connect_ex(path) == 0)
        return connection

    def to_first_response(self, *setup):
        began = time.perf_counter()
        state = self.state()
        self.setup(state, *setup)
        p, path = self.start(state)
        with self.connect(path) as connection:
            answers(connection)
            took = time.perf_counter() - began
        self.processes.stop(p)
        return took


def free_ports():
    """A port whose successor is free as well."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port = first.getsockname()[1]
            try:
                second.bind(("127.0.0.1", port + 1))
                return port
            except (OSError, OverflowError):
                continue


def pss(pid):
    """A process' share of memory, in kB."""
    with open(f"/proc/{pid}/smaps_rollup") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("Pss:"))


def on_one_cpu(bench, vtpm, *arguments):
    """As bench(vtpm, ...), with the client and every TPM on one processor."""
    everywhere = os.sched_getaffinity(0)
    vtpm.cpus = {min(everywhere)}
    os.sched_setaffinity(0, vtpm.cpus)  # for what is started from here on
    try:
        return bench(vtpm, *arguments)
    finally:
        vtpm.cpus = None
        os.sched_setaffinity(0, everywhere)


def bench_latency(vtpm, options, swtpm):
    port = free_ports()
    unix, tcp, held = swtpm.start(swtpm.state()), swtpm.start(swtpm.state(), port), swtpm.start(swtpm.state())
    for _, path in (unix, held):
        swtpm.connect(path).close()

    def tcp_listens():
        with socket.socket() as s:
            return s.connect_ex(("127.0.0.1", port)) == 0

    wait_for("swtpm over TCP", tcp_listens)
    node, stream = vtpm.attach(vtpm.create()), vtpm.attach(vtpm.create(), "--backend", "socket")
    output = subprocess.run([os.path.join(options.bin_dir, "bench_latency"), str(options.iterations),
                             f"vtpm=device:{node}", f"socket=stream:{stream}", f"unix=swtpm:path={unix[1]}", f"tcp=swtpm:host=127.0.0.1,port={port}",
                             f"held=stream:{held[1]}"], stdout=subprocess.PIPE, text=True, check=True).stdout
    for p, _ in (unix, tcp, held):
        swtpm.processes.stop(p)
    vtpm.release()
    rows = {}
    for line in output.splitlines():
        name, command, count, p50, p90 = line.split()
        rows.setdefault(command, {})[name] = {"count": int(count), "p50_us": float(p50), "p90_us": float(p90)}
    for row in rows.values():
        for name in row:
            row[name]["ratio"] = row[name]["p50_us"] / row["vtpm"]["p50_us"]
    return rows


def bench_create(options, vtpm, swtpm):
    certificates = ("--create-ek-cert", "--create-platform-cert")
    swtpm.to_first_response(*certificates)  # makes the certificate authority
    vtpm.to_first_response()
    times = {"vtpm": [], "keys": [], "certificates": []}
    for _ in range(options.creations):
        times["vtpm"].append(vtpm.to_first_response())
        times["keys"].append(swtpm.to_first_response("--createek"))
        times["certificates"].append(swtpm.to_first_response(*certificates))
    vtpm.release()
    p50 = {name: statistics.median(values) * 1000 for name, values in times.items()}
    return {"count": options.creations, "p50_ms": p50,
            "ratio": {name: p50[name] / p50["vtpm"] for name in ("keys", "certificates")}}


def bench_memory(options, vtpm, swtpm):
    ours, theirs = [], []
    for _ in range(options.instances):
        instance = vtpm.create()
        with open(vtpm.attach(instance), "rb+", buffering=0) as node:
            node.write(GET_RANDOM)
            node.read(4096)
        ours.append(vtpm.engine_pid(instance))
        p, path = swtpm.start(swtpm.state())
        with swtpm.connect(path) as connection:
            answers(connection)
        theirs.append(p)
    result = {"instances": options.instances, "vtpm_kb": statistics.mean(pss(p) for p in ours),
              "vtpmd_kb": pss(vtpm.daemon.pid), "swtpm_kb": statistics.mean(pss(p.pid) for p in theirs)}
    result["ratio"] = result["swtpm_kb"] / result["vtpm_kb"]
    for p in theirs:
        swtpm.processes.stop(p)
    vtpm.release()
    return result


def print_latency(title, rows):
    print(f"{title}, p50 in us, and how many times that of the vTPM\n")
    print(f"{'':22}" + "".join(f"{LABELS[n]:>26}" for n in LABELS))
    for command, row in rows.items():
        cells = [f"{row['vtpm']['p50_us']:26.1f}"]
        cells += [f"{row[n]['p50_us']:16.1f} ({row[n]['ratio']:5.1f} x)" for n in LABELS if n != "vtpm"]
        label = command.replace("_P-256", " P-256")
        print(f"{label:22}" + "".join(cells))
    print()


def print_tables(result):
    placements = ((", placed by the scheduler", ""), (", client and TPM on one processor", "_one_cpu"))
    for placement, suffix in placements:
        print_latency("Command latency" + placement, result["latency" + suffix])
    print(LATENCY_NOTE)

    create = result["create"]
    print(f"\nCreate to first response, p50 of {create['count']} in ms, and how many times that of the vTPM\n")
    print(f"{'vTPM: vtpmctl create, vtpmctl attach, GetRandom':58}{create['p50_ms']['vtpm']:10.1f}")
    for name, text in (("keys", "swtpm_setup with keys alone, swtpm, GetRandom"),
                       ("certificates", "swtpm_setup with EK and platform certificates, swtpm, ...")):
        print(f"{text:58}{create['p50_ms'][name]:10.1f} ({create['ratio'][name]:5.1f} x)")

    memory = result["memory"]
    print(f"\nMemory of an instance, mean PSS of {memory['instances']} in kB\n")
    print(f"{'vTPM':58}{memory['vtpm_kb']:10.0f}")
    print(f"{'swtpm':58}{memory['swtpm_kb']:10.0f} ({memory['ratio']:5.1f} x)")
    print(f"{'besides, once: vtpmd':58}{memory['vtpmd_kb']:10.0f}")
    for placement, suffix in placements:
        sharing.print_nodes(placement, result["nodes" + suffix])
    for placement, suffix in placements:
        sharing.print_clients(placement, result["clients" + suffix])


def parse_arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--json", action="store_true", help="print the figures as one JSON document")
    p.add_argument("--quick", action="store_true", help="tiny counts: only whether it works")
    p.add_argument("--iterations", type=int, default=5000, help="commands per TPM (5000)")
    p.add_argument("--creations", type=int, default=10, help="TPMs to create on either side (10)")
    p.add_argument("--instances", type=int, default=20, help="instances alive for the memory figures (20)")
    p.add_argument("bin_dir", metavar="BIN_DIR")
    options = p.parse_args()
    if options.quick:
        options.iterations, options.creations, options.instances = 50, 1, 2
    return options


def skip(reason):
    print("SKIPPED: " + reason)
    sys.exit(77)


def main():
    options = parse_arguments()
    if os.geteuid() != 0:
        skip("needs root: it mounts nodes and reads other processes' memory figures")
    if not os.path.exists("/dev/fuse"):
        skip("there is no /dev/fuse")
    work = tempfile.mkdtemp(prefix="vtpm-bench-")
    os.chmod(work, 0o755)
    log = open(os.path.join(work, "log"), "w+")
    processes = Processes(log)
    vtpm = None
    try:
        swtpm = Swtpm(work, processes)
        vtpm = Vtpm(options.bin_dir, work, processes)
        result = {"create": bench_create(options, vtpm, swtpm), "memory": bench_memory(options, vtpm, swtpm)}
        for name, bench, *arguments in (("latency", bench_latency, options, swtpm), ("nodes", sharing.bench_nodes, options),
                                        ("clients", sharing.bench_clients, options, swtpm, wait_for)):
            result[name] = bench(vtpm, *arguments)
            result[name + "_one_cpu"] = on_one_cpu(bench, vtpm, *arguments)
    except BaseException:
        log.seek(0)
        sys.stderr.write("".join(log.readlines()[-30:]))
        raise
    finally:
        if vtpm:
            for _, path in vtpm.attached:
                subprocess.run(["umount", "-l", path])
        processes.stop_all()
        shutil.rmtree(work, ignore_errors=True)
    if options.json:
        json.dump(result, sys.stdout, indent=2)
        print()
    else:
        print_tables(result)


main()
