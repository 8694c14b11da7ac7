#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Enrolment from the manufacturer's CA to a verified container's TPM: two hosts with TPMs, a verifier with files."""

import json
import os
import shutil
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.join(os.environ["VTPM_SOURCE_DIR"], "tests", "support"))
import hardware_tpm  # noqa: E402
import vtpm_host  # noqa: E402

NONCE = "0123456789abcdef" * 2


def make_key(path):
    """A P-256 key; its public half as PEM."""
    subprocess.run(["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", path],
                   check=True, stderr=subprocess.DEVNULL)
    return subprocess.run(["openssl", "pkey", "-in", path, "-pubout"], check=True, stdout=subprocess.PIPE,
                          text=True).stdout


class Site:
    """A host whose hardware TPM is by a manufacturer."""

    def __init__(self, anchored=True):
        self.host = vtpm_host.Host()
        self.manufacturer = hardware_tpm.Manufacturer(os.path.join(self.host.directory, "ca"))
        self.tpm = self.manufacturer.make_tpm(os.path.join(self.host.directory, "tpm")) if anchored else None
        self.host.start(self.tpm.tcti if anchored else "embedded")

    def close(self):
        try:
            self.host.close()
        finally:
            if self.tpm:
                self.tpm.close()


class Enrolment(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.one, cls.two = Site(), Site()
        cls.addClassCleanup(cls.one.close)
        cls.addClassCleanup(cls.two.close)

    def setUp(self):
        self.desk = os.path.join(self.one.host.directory, "desk")
        os.mkdir(self.desk)
        self.addCleanup(shutil.rmtree, self.desk)
        self.authority = make_key(self.at("authority.pem"))

    def at(self, name):
        return os.path.join(self.desk, name)

    def run_ctl(self, site, *arguments):
        return site.host.ctl(*arguments)

    def ok(self, site, *arguments):
        done = self.run_ctl(site, *arguments)
        self.assertEqual(done.returncode, 0, (arguments, done.stderr, site.host.log_text()))
        return done.stdout

    def refused(self, site, status, *arguments):
        done = self.run_ctl(site, *arguments)
        self.assertEqual(done.returncode, status, (arguments, done.stdout, done.stderr))
        return done.stderr

    def begin(self, site, ca, *more):
        self.ok(site, "anchor", "enroll", "-o", self.at("request"))
        return ("enroll", self.at("request"), "--ca", ca, "--pending", self.at("pending"), "-o", self.at("challenge"),
                *more)

    def enrol(self, site, key="authority.pem"):
        maker = site.manufacturer
        self.ok(site, *self.begin(site, maker.root, "--intermediates", maker.intermediate))
        self.ok(site, "anchor", "enroll", "--challenge", self.at("challenge"), "-o", self.at("answer"))
        self.ok(site, "enroll", "--finish", self.at("answer"), "--pending", self.at("pending"), "--key", self.at(key),
                "-o", self.at("enrolment"))

    def policy(self, **members):
        path = self.at("policy")
        with open(path, "w", encoding="utf-8") as file:
            json.dump({"format": "vtpm-policy/1", **members}, file)
        return path

    def verify(self, site, **members):
        """Exit status and report of `verify` of new evidence under a policy with these members."""
        instance = self.ok(site, "create").strip()
        self.ok(site, "attest", instance, "--nonce", NONCE, "-o", self.at("evidence"))
        self.ok(site, "destroy", instance)
        done = self.run_ctl(site, "verify", self.at("evidence"), "--policy", self.policy(**members), "--nonce", NONCE)
        return done.returncode, done.stdout

    def test_1_a_host_is_accepted_by_its_tpm(self):
        status, report = self.verify(self.one, enrolment_authorities=[self.authority])
        self.assertEqual(status, 1)
        self.assertIn("anchor.enrolment: the host shows no enrolment", report)
        self.enrol(self.one)
        self.assertEqual(os.stat(self.at("pending")).st_mode & 0o777, 0o600)
        self.ok(self.one, "anchor", "enroll", "--enrolment", self.at("enrolment"))
        status, report = self.verify(self.one, enrolment_authorities=[self.authority])
        self.assertEqual(status, 0, report)
        with open(self.one.manufacturer.root, encoding="ascii") as file:
            root = file.read()
        root = root[root.index("-----BEGIN"):]
        self.assertEqual(self.verify(self.one, enrolment_authorities=[self.authority], ek_cas=[root])[0], 0)
        with open(self.two.manufacturer.root, encoding="ascii") as file:
            other = file.read()
        other = other[other.index("-----BEGIN"):]
        status, report = self.verify(self.one, enrolment_authorities=[self.authority], ek_cas=[other])
        self.assertEqual(status, 1)
        self.assertIn("leads to no CA of the policy", report)
        status, report = self.verify(self.one, enrolment_authorities=[make_key(self.at("other.pem"))])
        self.assertEqual(status, 1)
        self.assertIn("no enrolment is signed by an authority that the policy accepts", report)

    def test_2_it_outlives_a_restart_and_is_renewed(self):
        self.enrol(self.one)
        self.ok(self.one, "anchor", "enroll", "--enrolment", self.at("enrolment"))
        before = len(json.loads(self.one.host.http("GET", "/v1/anchor/enrolments"))["enrolments"])
        self.enrol(self.one)
        self.ok(self.one, "anchor", "enroll", "--enrolment", self.at("enrolment"))
        self.one.host.stop()
        self.one.host.start(self.one.tpm.tcti)
        self.assertEqual(len(json.loads(self.one.host.http("GET", "/v1/anchor/enrolments"))["enrolments"]), before)
        self.assertEqual(self.verify(self.one, enrolment_authorities=[self.authority])[0], 0)

    def test_3_another_manufacturer_is_refused(self):
        error = self.refused(self.one, 1, *self.begin(self.one, self.two.manufacturer.root, "--intermediates",
                                                      self.two.manufacturer.intermediate))
        self.assertIn("unable to get", error)
        self.assertFalse(os.path.exists(self.at("challenge")))

    def test_4_another_host_cannot_answer(self):
        maker = self.one.manufacturer
        self.ok(self.one, *self.begin(self.one, maker.root, "--intermediates", maker.intermediate))
        self.refused(self.two, 4, "anchor", "enroll", "--challenge", self.at("challenge"))
        with open(self.at("challenge"), encoding="utf-8") as file:
            challenge = json.load(file)
        challenge["ak_name"] = json.loads(self.ok(self.two, "--json", "anchor"))["ak_name"]
        with open(self.at("challenge"), "w", encoding="utf-8") as file:
            json.dump(challenge, file)
        error = self.refused(self.two, 2, "anchor", "enroll", "--challenge", self.at("challenge"))
        self.assertIn("was not made for this TPM", error)

    def test_5_an_enrolment_of_another_host_is_not_kept(self):
        self.enrol(self.one)
        error = self.refused(self.two, 4, "anchor", "enroll", "--enrolment", self.at("enrolment"))
        self.assertIn("another attestation key", error)

    def test_6_a_wrong_answer_is_not_signed(self):
        maker = self.one.manufacturer
        self.ok(self.one, *self.begin(self.one, maker.root, "--intermediates", maker.intermediate))
        self.ok(self.one, "anchor", "enroll", "--challenge", self.at("challenge"), "-o", self.at("answer"))
        self.ok(self.one, *self.begin(self.one, maker.root, "--intermediates", maker.intermediate))  # another secret
        error = self.refused(self.one, 1, "enroll", "--finish", self.at("answer"), "--pending", self.at("pending"),
                             "--key", self.at("authority.pem"), "-o", self.at("enrolment"))
        self.assertIn("does not have the challenge's secret", error)
        self.assertFalse(os.path.exists(self.at("enrolment")))

    def test_7_usage(self):
        self.refused(self.one, 2, "enroll", "--pending", self.at("pending"))
        self.refused(self.one, 2, "enroll", self.at("request"), "--pending", self.at("pending"))
        self.refused(self.one, 2, "enroll", "--finish", self.at("answer"), "--pending", self.at("pending"))
        error = self.refused(self.one, 4, "enroll", self.at("nothing"), "--ca", self.one.manufacturer.root, "--pending",
                             self.at("pending"))
        self.assertIn("nothing", error)
        self.ok(self.one, "anchor", "enroll", "-o", self.at("request"))
        error = self.refused(self.one, 4, "enroll", self.at("request"), "--ca", self.at("authority.pem"), "--pending",
                             self.at("pending"))
        self.assertIn("authority.pem: no certificate in PEM", error)

    def test_8_a_host_without_a_tpm_says_so(self):
        site = Site(anchored=False)
        self.addCleanup(site.close)
        error = self.refused(site, 4, "anchor", "enroll")
        self.assertIn("no endorsement key certificate", error)


if __name__ == "__main__":
    if os.geteuid() != 0 or hardware_tpm.missing() or shutil.which("openssl") is None:
        print("SKIPPED: needs root, openssl and " + ", ".join(hardware_tpm.PROGRAMS))
        sys.exit(77)
    unittest.main(verbosity=2)
