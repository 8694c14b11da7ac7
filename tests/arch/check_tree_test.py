#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""That check_tree.py finds what it is there to find: each rule is broken in a small tree of its own."""

import os
import shutil
import subprocess
import tempfile
import unittest

import check_tree

LICENSE = "// SPDX-License-Identifier: Apache-2.0\n"


class Tree(unittest.TestCase):
    def setUp(self):
        self.root = tempfile.mkdtemp(prefix="vtpm-arch-")
        self.addCleanup(shutil.rmtree, self.root)
        self.write("libvtpm/include/vtpm/os/file.h", "int f();\n")
        self.write("libvtpm/include/vtpm/evidence/policy.h", "int p();\n")
        self.write("libvtpm/src/json/strict.h", "int j();\n")
        self.write("daemon/ipc/frame.h", "int i();\n")
        self.write("daemon/supervisor/routes.h", "int r();\n")

    def write(self, path, text, license_line=LICENSE):
        full = os.path.join(self.root, path)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, "w") as f:
            f.write(license_line + text)

    def violations(self):
        self.notes = []
        return list(check_tree.check_tree(self.root, self.notes))

    def assert_refused(self, *parts):
        found = self.violations()
        self.assertEqual(len(found), 1, found)
        for part in parts:
            self.assertIn(part, found[0])

    def test_a_tree_that_keeps_the_rules_has_no_violations(self):
        self.write("libvtpm/src/evidence/policy.cpp",
                   '#include <vtpm/evidence/policy.h>\n#include <vtpm/os/file.h>\n#include "json/strict.h"\n')
        self.write("daemon/supervisor/routes.cpp", '#include "daemon/ipc/frame.h"\n#include <boost/asio.hpp>\n')
        self.write("tests/unit/ipc/frame_test.cpp", '#include "daemon/ipc/frame.h"\n#include <catch2/catch.hpp>\n')
        self.assertEqual(self.violations(), [])

    def test_os_must_not_include_evidence(self):
        self.write("libvtpm/src/os/file.cpp", "#include <vtpm/evidence/policy.h>\n")
        self.assert_refused("libvtpm/src/os/file.cpp:2", "os must not include evidence")

    def test_the_library_must_not_include_from_the_daemon(self):
        self.write("libvtpm/src/device/node.cpp", '#include "daemon/ipc/frame.h"\n')
        self.assert_refused("device must not include daemon/ipc")

    def test_the_command_line_must_not_include_from_the_daemon_by_a_relative_path(self):
        self.write("cli/main.cpp", '#include "../daemon/ipc/frame.h"\n')
        self.assert_refused("cli must not include daemon/ipc")

    def test_the_engine_must_not_include_the_supervisor(self):
        self.write("daemon/engine/main.cpp", '#include "daemon/supervisor/routes.h"\n')
        self.assert_refused("daemon/engine must not include daemon/supervisor")

    def test_product_code_must_not_include_from_tests(self):
        self.write("tests/support/skip.h", "\n")
        self.write("cli/main.cpp", '#include "tests/support/skip.h"\n')
        self.assert_refused("a test's")

    def test_a_public_header_must_not_include_an_internal_one(self):
        self.write("libvtpm/include/vtpm/evidence/verifier.h", '#include "json/strict.h"\n')
        self.assert_refused("not installed")

    def test_libtpms_belongs_to_the_engine_even_in_tests(self):
        self.write("daemon/engine/tpm.cpp", "#include <libtpms/tpm_library.h>\n")
        self.write("tests/unit/tpm/x_test.cpp", "#include <libtpms/tpm_library.h>\n")
        self.assert_refused("tests/unit/tpm/x_test.cpp:2", "libtpms")

    def test_asio_json_and_tss_headers_have_their_places(self):
        for path, header in (("cli/list.cpp", "boost/beast/http.hpp"), ("libvtpm/include/vtpm/log/entry.h",
                             "nlohmann/json.hpp"), ("daemon/supervisor/x.cpp", "tss2/tss2_esys.h")):
            with self.subTest(header=header):
                self.write(path, f"# include <{header}>\n")
                self.assert_refused(path + ":2", header)
                self.write(path, "\n")

    def test_raw_system_calls_are_found_outside_os_only(self):
        self.write("libvtpm/src/os/mount.cpp", "int f() { return setns(1, 2); }\n")
        self.write("cli/attach.cpp", 'int g() { return ::setns(1, 2); }  // setns(1)\nconst char* s = "setns(";\n')
        self.assert_refused("cli/attach.cpp:2", "setns(2)")

    def test_a_raw_system_call_by_number_is_found(self):
        self.write("daemon/supervisor/x.cpp", "long f() { return syscall(SYS_pidfd_open, 1, 0); }\n")
        self.assert_refused("pidfd_open(2)")

    def test_a_method_of_a_system_calls_name_is_no_system_call(self):
        self.write("cli/x.cpp", "void f(Node& n) { n.mount(1); device::mount(2); }\n")
        self.assertEqual(self.violations(), [])

    def test_a_file_without_the_license_line_is_found(self):
        for path, text in (("cli/x.cpp", "int x;\n"), ("cli/CMakeLists.txt", "project(x)\n"), ("examples/x", "#!/bin/sh\n")):
            with self.subTest(path=path):
                self.write(path, text, license_line="")
                self.assert_refused(path + ":1", "SPDX")
                os.unlink(os.path.join(self.root, path))

    def test_a_path_of_this_machine_is_found(self):
        self.write("packaging/notes.md", f"see {os.path.realpath(self.root)}/x\n")
        self.assert_refused("names a path of this machine")

    def test_a_neighbour_of_the_checkout_is_found(self):
        os.makedirs(os.path.join(self.root, "here/tree/cli"))
        os.makedirs(os.path.join(self.root, "here/notes"))
        self.write("here/tree/cli/x.cpp", f"// {os.path.realpath(self.root)}/here/notes/x\n")
        self.root = os.path.join(self.root, "here/tree")
        self.assert_refused("cli/x.cpp:2", "here/notes")

    def test_long_files_and_functions_are_noted_and_then_refused(self):
        self.write("cli/x.cpp", "int x;\n" * 450)
        self.assertEqual(self.violations(), [])
        self.assertEqual(len(self.notes), 1)
        self.write("cli/x.cpp", "int x;\n" * 501)
        self.assert_refused("a file of 502 lines")
        self.write("cli/x.cpp", "class A {\n  int f(int a) const noexcept {\n" + "    if (a) { a++; }\n" * 90 + "  }\n};\n")
        self.assert_refused("cli/x.cpp:3", "a function of 92 lines")

    def test_a_long_table_or_namespace_is_no_function(self):
        self.write("cli/x.cpp", "namespace a {\nint t[] = {\n" + "  f(1),\n" * 120 + "};\n}\n")
        self.assertEqual(self.violations(), [])

    def test_build_folders_are_not_looked_at(self):
        self.write("build/x.cpp", "int x;\n", license_line="")
        self.write("build-asan/x.cpp", "int x;\n", license_line="")
        self.assertEqual(self.violations(), [])


@unittest.skipUnless(shutil.which("cc"), "needs a C compiler")
class Programs(unittest.TestCase):
    def setUp(self):
        self.bin = tempfile.mkdtemp(prefix="vtpm-arch-bin-")
        self.addCleanup(shutil.rmtree, self.bin)

    def build(self, program, *libraries):
        subprocess.run(["cc", "-x", "c", "-", "-o", os.path.join(self.bin, program), "-Wl,--no-as-needed", *libraries],
                       input="int main(void) { return 0; }\n", text=True, check=True)

    def test_forbidden_and_missing_libraries_are_found(self):
        self.build("vtpm-hook", "-lcrypto")
        self.build("vtpmctl", "-lcrypto")
        self.build("vtpm-engine")
        found = list(check_tree.check_programs(self.bin))
        self.assertEqual([f.split(":")[0] for f in found], ["vtpm-hook", "vtpmd", "vtpm-engine"], found)
        self.assertIn("loads libcrypto", found[0])
        self.assertIn("not built", found[1])
        self.assertIn("does not load libtpms", found[2])

    def test_a_library_behind_a_library_is_found(self):
        self.build("vtpmd", "-ltpms")
        self.assertTrue(any(f.startswith("vtpmd: loads libtpms") for f in check_tree.check_programs(self.bin)))


if __name__ == "__main__":
    unittest.main()
