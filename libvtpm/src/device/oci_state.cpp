// SPDX-License-Identifier: Apache-2.0
#include "json/strict.h"
#include "json/text.h"

#include <vtpm/device/oci_state.h>

namespace vtpm::device {
namespace {

using json::Item;
using json::plain_text;
using json::Reader;

constexpr std::string_view kPrefix = "dev.vtpm.";
constexpr std::size_t kMaxPath = 4096;
constexpr std::size_t kMaxName = 64;
constexpr std::uint64_t kMaxPid = 4194304;  // PID_MAX_LIMIT of the kernel

Result<std::string> absolute_path(const Item& item) {
  VTPM_TRY(auto path, plain_text(item, kMaxPath));
  if (path.front() != '/') return item.malformed("must be an absolute path");
  return path;
}

Result<bool> boolean_text(const Item& item) {
  VTPM_TRY(const auto text, item.string());
  if (text != "true" && text != "false") return item.malformed("must be \"true\" or \"false\"");
  return text == "true";
}

Result<bool> standard_names(const Item& item) {
  VTPM_TRY(const auto text, item.string());
  if (text != "standard" && text != "vtpm") return item.malformed("must be \"standard\" or \"vtpm\"");
  return text == "standard";
}

Result<bool> in_its_cgroup(const Item& item) {
  VTPM_TRY(const auto text, item.string());
  if (text != "container" && text != "daemon") return item.malformed("must be \"container\" or \"daemon\"");
  return text == "container";
}

Result<> read_annotation(std::string_view name, const Item& item, TpmAnnotations& out) {
  if (name == "enable") {
    VTPM_TRY(out.enable, boolean_text(item));
  } else if (name == "name") {
    VTPM_TRY(out.name, plain_text(item, kMaxName));
  } else if (name == "durable") {
    VTPM_TRY(out.durable, boolean_text(item));
  } else if (name == "image-digest") {
    VTPM_TRY(out.image, json::content_digest(item));
  } else if (name == "require-policy") {
    VTPM_TRY(out.policy, plain_text(item, kMaxPath));
  } else if (name == "cgroup") {
    VTPM_TRY(out.in_its_cgroup, in_its_cgroup(item));
  } else if (name == "device-names") {
    VTPM_TRY(out.standard_names, standard_names(item));
  } else {
    return item.malformed("no such annotation");
  }
  return {};
}

Result<TpmAnnotations> read_annotations(const Item& item) {
  TpmAnnotations annotations;
  VTPM_TRY(auto reader, item.object());
  for (const auto& name : reader.names()) {
    if (name.compare(0, kPrefix.size(), kPrefix) != 0) continue;
    VTPM_TRY(const auto member, reader.member(name));
    VTPM_TRY_VOID(read_annotation(std::string_view(name).substr(kPrefix.size()), member, annotations));
  }
  return annotations;
}

}  // namespace

Result<OciState> parse_oci_state(std::string_view text) {
  VTPM_TRY(const auto document, json::parse(text, kMaxOciDocument));
  VTPM_TRY(auto reader, Reader::of(document));
  OciState state{};
  VTPM_TRY(const auto id, reader.member("id"));
  VTPM_TRY(state.id, plain_text(id, kMaxId));
  VTPM_TRY(const auto bundle, reader.member("bundle"));
  VTPM_TRY(state.bundle, absolute_path(bundle));
  VTPM_TRY(const auto pid, reader.optional_integer("pid", 0, kMaxPid));
  state.pid = static_cast<pid_t>(pid);
  if (const auto root = reader.optional_member("root")) {
    VTPM_TRY(state.root, absolute_path(*root));
  }
  if (const auto annotations = reader.optional_member("annotations")) {
    VTPM_TRY(state.annotations, read_annotations(*annotations));
  }
  return state;
}

Result<std::string> root_path(std::string_view config_json, const std::string& bundle) {
  VTPM_TRY(const auto document, json::parse(config_json, kMaxOciDocument));
  VTPM_TRY(auto reader, Reader::of(document));
  VTPM_TRY(auto root, reader.object("root"));
  VTPM_TRY(const auto item, root.member("path"));
  VTPM_TRY(auto path, plain_text(item, kMaxPath));
  if (!path.starts_with('/')) path.insert(0, bundle + "/");
  return path;
}

}  // namespace vtpm::device
