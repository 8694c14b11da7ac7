# SPDX-License-Identifier: Apache-2.0
"""What the resource manager costs: the managed node beside the raw one, two clients beside tpm2-abrmd, and NV writes
beside the disk."""

import os
import shutil
import statistics
import subprocess
import tempfile
import time

BUS = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>session</type><listen>unix:path={path}</listen><auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/></policy>
</busconfig>
"""
SYNCED = 200  # bare writes with fdatasync


def rows_of(output):
    rows = {}
    for line in output.splitlines():
        name, command, count, p50, p90 = line.split()
        rows.setdefault(command, {})[name] = {"count": int(count), "p50_us": float(p50), "p90_us": float(p90)}
    return rows


def bench_nodes(vtpm, options):
    """The same commands through a managed and a raw node, each the only client of its TPM; and through a durable one's."""
    targets = []
    for name, flags in (("managed", ()), ("raw", ("--raw",))):
        targets.append(f"{name}=device:{vtpm.attach(vtpm.create(), *flags)}")
    durable = vtpm.create_durable()
    if durable:
        targets.append(f"durable=device:{vtpm.attach(durable)}")
    output = subprocess.run([os.path.join(options.bin_dir, "bench_latency"), str(options.iterations), *targets],
                            stdout=subprocess.PIPE, text=True, check=True).stdout
    rows = rows_of(output)
    disk = {name: bench_disk(vtpm.state, size) for name, size in
            (("32 bytes", 32), ("a state", vtpm.slot_size(durable)))} if durable else {}
    vtpm.release()
    for row in rows.values():
        row["managed"]["ratio"] = row["managed"]["p50_us"] / row["raw"]["p50_us"]
    write, random = rows["bare_NV_Write(32)"], rows["bare_GetRandom(32)"]
    for name in write:
        write[name]["of_get_random"] = write[name]["p50_us"] / random[name]["p50_us"]
    return {"commands": rows, "disk": disk}


def bench_disk(directory, size):
    """A write of that size at one place of a file, and fdatasync: p50 in us."""
    times = []
    path = os.path.join(directory, "bench-write")
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.pwrite(file, bytes(size), 0)
        os.fsync(file)
        for number in range(SYNCED):
            data = bytes([number & 0xFF]) * size
            began = time.perf_counter()
            os.pwrite(file, data, 0)
            os.fdatasync(file)
            times.append((time.perf_counter() - began) * 1e6)
    finally:
        os.close(file)
        os.unlink(path)
    return {"bytes": size, "p50_us": statistics.median(times)}


class Abrmd:
    """A tpm2-abrmd of its own on a message bus of its own."""

    def __init__(self, work, processes, swtpm_socket, wait_for):
        directory = tempfile.mkdtemp(prefix="abrmd-", dir=work)
        bus = os.path.join(directory, "bus")
        with open(bus + ".conf", "w", encoding="utf-8") as file:
            file.write(BUS.format(path=bus))
        self.address = "unix:path=" + bus
        self.processes = processes
        self.bus = processes.start("dbus-daemon", f"--config-file={bus}.conf", "--nofork", "--nopidfile")
        wait_for("message bus", lambda: os.path.exists(bus))
        self.broker = processes.start("env", "DBUS_SESSION_BUS_ADDRESS=" + self.address, "tpm2-abrmd", "--session", "--allow-root",
                        "--logger=stdout", "--tcti=swtpm:path=" + swtpm_socket)
        self.environment = {**os.environ, "DBUS_SESSION_BUS_ADDRESS": self.address}

    def stop(self):
        for process in (self.broker, self.bus):
            self.processes.stop(process)

    def answers(self):
        return subprocess.run(["tpm2_getrandom", "-T", "tabrmd:bus_type=session", "4", "--hex"], env=self.environment,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False).returncode == 0


def bench_clients(vtpm, options, swtpm, wait_for):
    rounds = max(1, options.iterations // 6)
    program = os.path.join(options.bin_dir, "bench_clients")
    nodes = {name: vtpm.attach(vtpm.create(), *flags)
             for name, flags in (("vtpm", ()), ("socket", ("--backend", "socket")), ("kernel", ("--raw",)))}
    targets = [f"vtpm=device:{nodes['vtpm']}", f"socket=stream:{nodes['socket']}", f"kernel=device:{nodes['kernel']}"]
    environment, tpm, abrmd = os.environ, None, None
    if shutil.which("tpm2-abrmd", path=os.environ.get("PATH", "") + ":/usr/sbin") and shutil.which("dbus-daemon"):
        tpm, path = swtpm.start(swtpm.state())
        swtpm.connect(path).close()
        abrmd = Abrmd(swtpm.work, swtpm.processes, path, wait_for)
        wait_for("tpm2-abrmd", abrmd.answers)
        targets.insert(2, "abrmd=tabrmd:bus_type=session")
        environment = abrmd.environment
    output = subprocess.run([program, str(rounds), *targets], stdout=subprocess.PIPE, text=True, check=True, env=environment).stdout
    if abrmd:
        abrmd.stop()
        swtpm.processes.stop(tpm)
    vtpm.release()
    rows = {}
    for line in output.splitlines():
        name, count, p50, p90 = line.split()
        rows[name] = {"count": int(count), "p50_us": float(p50), "p90_us": float(p90)}
    for row in rows.values():
        row["ratio"], row["ratio_to_socket"] = (row["p50_us"] / rows[own]["p50_us"] for own in ("vtpm", "socket"))
    return rows


def print_nodes(placement, nodes):
    print(f"\nOne client alone{placement}: the managed node beside the raw one, p50 in us\n")
    print(f"{'':22}{'managed node':>16}{'raw node':>16}{'managed/raw':>16}{'durable':>16}")
    for command, row in nodes["commands"].items():
        durable = f"{row['durable']['p50_us']:16.1f}" if "durable" in row else f"{'-':>16}"
        print(f"{command.replace('_P-256', ' P-256'):22}{row['managed']['p50_us']:16.1f}{row['raw']['p50_us']:16.1f}"
              f"{row['managed']['ratio']:14.2f} x{durable}")
    write = nodes["commands"]["bare_NV_Write(32)"]
    print(f"\nbare: without ESYS. An NV_Write of 32 bytes costs {write['managed']['of_get_random']:.2f} times what GetRandom(32) costs, "
          "on an ephemeral TPM")
    for name, row in nodes["disk"].items():
        print(f"pwrite and fdatasync of {name} ({row['bytes']} bytes) on the file system of the durable TPM: {row['p50_us']:.1f} us; "
              f"a durable NV_Write is {write['durable']['p50_us'] / row['p50_us']:.1f} times that")


def print_clients(placement, clients):
    print(f"\nTwo clients that take turns{placement}, three objects each: an HMAC, p50 in us, and how many times that of the\n"
          "vTPM through its node and through a Unix socket\n")
    labels = {"vtpm": "vTPM, managed node", "socket": "vTPM, Unix socket", "abrmd": "swtpm behind tpm2-abrmd",
              "kernel": "one client, all contexts swapped at each command (as the kernel does), raw node"}
    for name, row in clients.items():
        print(f"{labels[name]:82}{row['p50_us']:10.1f} ({row['ratio']:5.1f} x, {row['ratio_to_socket']:5.1f} x)")
    if "abrmd" not in clients:
        print("tpm2-abrmd is not installed")
