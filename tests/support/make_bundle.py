#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes an OCI bundle's config.json whose container gets its TPM from vtpm-hook.

make_bundle.py DIR --rootfs ROOTFS --hook VTPM_HOOK --runtime-dir DIR [options] -- COMMAND...

It begins with `runc spec`; `--annotation KEY=VALUE` adds to (or, with an empty VALUE, takes away from)
dev.vtpm.enable=true."""

import argparse
import json
import os
import subprocess
import sys


def hooks(arguments):
    """The hook at createRuntime, and at poststop unless it is left out."""
    stages = ["createRuntime"] + ([] if arguments.no_poststop else ["poststop"])
    return {
        stage: [
            {
                "path": arguments.hook,
                "args": ["vtpm-hook", "--runtime-dir", arguments.runtime_dir, stage],
                # Without "env" the hook would get the runtime's whole environment.
                "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"] + arguments.hook_env,
                "timeout": 15,
            }
        ]
        for stage in stages
    }


def annotations(arguments):
    wanted = {"dev.vtpm.enable": "true"}
    for text in arguments.annotation:
        key, _, value = text.partition("=")
        wanted[key] = value
    return {key: value for key, value in wanted.items() if value}


def add_user_namespace(config, first_id):
    mapping = [{"containerID": 0, "hostID": first_id, "size": 65536}]
    config["linux"]["namespaces"].append({"type": "user"})
    config["linux"]["uidMappings"] = mapping
    config["linux"]["gidMappings"] = mapping


def edit(config, arguments):
    config["root"] = {"path": os.path.abspath(arguments.rootfs), "readonly": arguments.readonly}
    config["process"]["terminal"] = False
    config["process"]["args"] = arguments.command
    config["process"]["env"] = ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/tmp"]
    config["hostname"] = "vtpm"
    config["annotations"] = annotations(arguments)
    config["hooks"] = hooks(arguments)
    # tpm2-tools write their contexts somewhere, and the root file system may be read-only.
    config["mounts"].append(
        {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", "mode=1777"]}
    )
    for texts, options in ((arguments.bind, ["bind", "rw"]), (arguments.bind_readonly, ["rbind", "ro"])):
        for text in texts:
            source, _, destination = text.partition(":")
            config["mounts"].append(
                {"destination": destination, "type": "bind", "source": source, "options": options}
            )
    if arguments.userns:
        add_user_namespace(config, arguments.userns)


def parse(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("--rootfs", required=True)
    parser.add_argument("--hook", required=True, help="absolute path of vtpm-hook")
    parser.add_argument("--hook-env", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--runtime-dir", required=True, help="where vtpmd's sockets are")
    parser.add_argument("--annotation", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--no-poststop", action="store_true", help="leave the poststop hook out")
    parser.add_argument("--readonly", action="store_true", help="read-only root file system")
    parser.add_argument("--userns", type=int, metavar="HOSTID", help="a user namespace mapping 0 to HOSTID")
    parser.add_argument("--bind", action="append", default=[], metavar="SOURCE:DESTINATION")
    parser.add_argument("--bind-readonly", action="append", default=[], metavar="SOURCE:DESTINATION")
    parser.add_argument("command", nargs="+")
    return parser.parse_args(argv)


def main():
    arguments = parse(sys.argv[1:])
    os.makedirs(arguments.bundle, exist_ok=True)
    path = os.path.join(arguments.bundle, "config.json")
    if os.path.exists(path):
        os.unlink(path)
    subprocess.run(["runc", "spec", "--bundle", arguments.bundle], check=True)
    with open(path, encoding="utf-8") as file:
        config = json.load(file)
    edit(config, arguments)
    with open(path, "w", encoding="utf-8") as file:
        json.dump(config, file, indent=2)


if __name__ == "__main__":
    main()
