// SPDX-License-Identifier: Apache-2.0
#include "tests/support/catch_result.h"

#include <vtpm/device/oci_state.h>
#include <vtpm/os/text.h>

#include <catch2/catch.hpp>

using namespace vtpm;
using namespace vtpm::device;

namespace {

const std::string kDigest = "sha256:" + std::string(64, '0');

std::string with_annotations(const std::string& annotations) {
  return R"({"id":"c","bundle":"/b","annotations":)" + annotations + "}";
}

}  // namespace

TEST_CASE("OCI state: runc's document at createRuntime is read") {
  const auto state = parse_oci_state(
      R"({"ociVersion":"1.0.2-dev","id":"probe1","status":"creating","pid":11055,"bundle":"/b/probe",)"
      R"("annotations":{"dev.vtpm.enable":"true","org.example":"x"}})");
  REQUIRE(state);
  CHECK(state->id == "probe1");
  CHECK(state->pid == 11055);
  CHECK(state->bundle == "/b/probe");
  CHECK_FALSE(state->root);
  CHECK(state->annotations.enable);
  CHECK(state->annotations.standard_names);
}

TEST_CASE("OCI state: crun's document names the root") {
  const auto state = parse_oci_state(
      R"({"ociVersion":"1.0","id":"probe1","pid":11690,"root":"/r","bundle":"/b","status":"created",)"
      R"("annotations":{}})");
  REQUIRE(state);
  CHECK(state->root == "/r");
  CHECK_FALSE(state->annotations.enable);
}

TEST_CASE("OCI state: at poststop there may be no pid and no annotations") {
  const auto state = parse_oci_state(R"({"ociVersion":"1.0","id":"c","status":"stopped","bundle":"/b"})");
  REQUIRE(state);
  CHECK(state->pid == 0);
  CHECK_FALSE(state->annotations.enable);
}

TEST_CASE("OCI state: all annotations are read") {
  const auto state = parse_oci_state(with_annotations(
      R"({"dev.vtpm.enable":"true","dev.vtpm.name":"web","dev.vtpm.durable":"true","dev.vtpm.image-digest":")" +
      kDigest + R"(","dev.vtpm.require-policy":"/etc/p.json","dev.vtpm.device-names":"vtpm",)" +
      R"("dev.vtpm.cgroup":"container"})"));
  REQUIRE(state);
  CHECK(state->annotations.in_its_cgroup);
  CHECK(state->annotations.name == "web");
  CHECK(state->annotations.durable);
  CHECK(state->annotations.image == kDigest);
  CHECK(state->annotations.policy == "/etc/p.json");
  CHECK_FALSE(state->annotations.standard_names);
}

TEST_CASE("OCI state: a TPM stays in vtpmd's cgroup unless it is asked for otherwise") {
  for (const std::string annotations : {"{}", R"({"dev.vtpm.cgroup":"daemon"})"})
    CHECK_FALSE(parse_oci_state(with_annotations(annotations))->annotations.in_its_cgroup);
}

TEST_CASE("OCI state: malformed documents are refused by name") {
  struct Row {
    std::string text;
    const char* names;
  };
  const auto row = GENERATE(values<Row>({
      {"", ""},
      {"{", ""},
      {"[]", ""},
      {"\"id\"", ""},
      {R"({"bundle":"/b"})", "id"},
      {R"({"id":"c"})", "bundle"},
      {R"({"id":1,"bundle":"/b"})", "id"},
      {R"({"id":"","bundle":"/b"})", "id"},
      {R"({"id":"a\u001bb","bundle":"/b"})", "id"},
      {R"({"id":"c","bundle":"relative"})", "bundle"},
      {R"({"id":"c","bundle":"/b","pid":-1})", "pid"},
      {R"({"id":"c","bundle":"/b","pid":"12"})", "pid"},
      {R"({"id":"c","bundle":"/b","pid":1.5})", "pid"},
      {R"({"id":"c","bundle":"/b","pid":4294967297})", "pid"},
      {R"({"id":"c","bundle":"/b","root":"rootfs"})", "root"},
      {R"({"id":"c","bundle":"/b","root":7})", "root"},
      {R"({"id":"c","id":"d","bundle":"/b"})", "id"},
      {R"({"id":")" + std::string(kMaxId + 1, 'c') + R"(","bundle":"/b"})", "id"},
      {with_annotations("[]"), "annotations"},
      {with_annotations(R"({"dev.vtpm.enable":true})"), "dev.vtpm.enable"},
      {with_annotations(R"({"dev.vtpm.enable":"yes"})"), "dev.vtpm.enable"},
      {with_annotations(R"({"dev.vtpm.enable":"True"})"), "dev.vtpm.enable"},
      {with_annotations(R"({"dev.vtpm.enabled":"true"})"), "dev.vtpm.enabled"},
      {with_annotations(R"({"dev.vtpm.name":""})"), "dev.vtpm.name"},
      {with_annotations(R"({"dev.vtpm.durable":"yes"})"), "dev.vtpm.durable"},
      {with_annotations(R"({"dev.vtpm.image-digest":"sha256:12"})"), "dev.vtpm.image-digest"},
      {with_annotations(R"({"dev.vtpm.image-digest":"sha512:)" + std::string(64, '0') + R"("})"),
       "dev.vtpm.image-digest"},
      {with_annotations(R"({"dev.vtpm.image-digest":"sha256:)" + std::string(64, 'A') + R"("})"),
       "dev.vtpm.image-digest"},
      {with_annotations(R"({"dev.vtpm.device-names":"tpm0"})"), "dev.vtpm.device-names"},
      {with_annotations(R"({"dev.vtpm.cgroup":"/a/path"})"), "dev.vtpm.cgroup"},
      {with_annotations(R"({"dev.vtpm.cgroup":""})"), "dev.vtpm.cgroup"},
      {with_annotations(R"({"dev.vtpm.cgroup":true})"), "dev.vtpm.cgroup"},
  }));
  INFO(row.text);
  const auto state = parse_oci_state(row.text);
  REQUIRE_FALSE(state);
  CHECK(state.error().kind() == ErrorCode::Malformed);
  CHECK_THAT(state.error().context, Catch::Contains(row.names));
}

TEST_CASE("OCI state: a document over the limit is refused") {
  const auto state = parse_oci_state(std::string(kMaxOciDocument + 1, ' '));
  REQUIRE_FALSE(state);
  CHECK(state.error().kind() == ErrorCode::Malformed);
}

TEST_CASE("OCI config: the root's path is absolute, or relative to the bundle") {
  CHECK(*root_path(R"({"root":{"path":"/r","readonly":true}})", "/b") == "/r");
  CHECK(*root_path(R"({"ociVersion":"1","root":{"path":"rootfs"}})", "/b") == "/b/rootfs");
}

TEST_CASE("OCI config: a document without a root is refused") {
  const auto text = GENERATE(values<std::string>(
      {"", "{}", R"({"root":{}})", R"({"root":"/r"})", R"({"root":{"path":7}})", R"({"root":{"path":""}})"}));
  INFO(text);
  const auto root = root_path(text, "/b");
  REQUIRE_FALSE(root);
  CHECK(root.error().kind() == ErrorCode::Malformed);
}
