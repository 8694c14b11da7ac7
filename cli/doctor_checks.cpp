// SPDX-License-Identifier: Apache-2.0
#include "cli/doctor_checks.h"

#include "cli/output.h"

#include <vtpm/device/fuse_node.h>
#include <vtpm/os/file.h>

#include <sys/stat.h>
#include <unistd.h>

#include <array>

namespace vtpm::cli {
namespace {

using Findings = std::vector<Finding>;

constexpr std::size_t kMaxDocument = std::size_t{1} * 1024 * 1024;

bool exists(const std::string& path) {
  return ::access(path.c_str(), F_OK) == 0;
}

void fuse(Findings& findings) {
  if (!exists("/dev/fuse")) {
    findings.push_back({Health::Fail, "/dev/fuse is missing", "load FUSE: modprobe fuse"});
    return;
  }
  const auto node = device::make_fuse_node();
  if (node) {
    findings.push_back({Health::Ok, "FUSE and the kernel's mount API: a device node can be made", ""});
  } else if (node.error().kind() == ErrorCode::PermissionDenied) {
    findings.push_back({Health::Warn,
                        "/dev/fuse is there; making a node was not tried: " + node.error().context,
                        "run `vtpmctl doctor` as root to try it"});
  } else {
    findings.push_back({Health::Fail, "a device node cannot be made: " + node.error().context,
                        "a kernel from 5.2 on with FUSE is needed"});
  }
}

void hardware_tpm(Findings& findings) {
  if (exists("/dev/tpmrm0"))
    findings.push_back({Health::Ok, "/dev/tpmrm0: there is a hardware TPM", ""});
  else
    findings.push_back({Health::Warn, "/dev/tpmrm0 is missing: no hardware TPM",
                        "enable the TPM in the firmware's setup; without one vtpmd needs --anchor embedded, "
                        "which is software, not hardware"});
}

void daemon(const Context& context, Findings& findings) {
  const auto body = context.client().call("GET", "/v1/anchor");
  if (!body) {
    findings.push_back({Health::Fail, "vtpmd: " + body.error().context,
                        body.error().kind() == ErrorCode::PermissionDenied
                            ? "run it as root or as a member of the group that vtpmd serves"
                            : "start vtpmd (systemctl start vtpmd), or give --runtime-dir"});
    return;
  }
  const auto anchor = parse_answer(*body);
  const std::string kind = anchor ? shown(*anchor, "kind") : "-";
  const std::string state = anchor ? shown(*anchor, "state") : "-";
  findings.push_back({Health::Ok, "vtpmd answers in " + context.runtime_dir, ""});
  if (kind == "tpm")
    findings.push_back({state == "unreachable" ? Health::Fail : Health::Ok,
                        "anchor: " + shown(*anchor, "description") + ", " + state,
                        state == "unreachable" ? "see vtpmd's log: its TPM does not answer" : ""});
  else
    findings.push_back(
        {Health::Warn, "anchor: " + kind + ": software, not hardware",
         "evidence proves nothing about the machine, and the key of durable instances is a file "
         "(state.key in the state directory); start vtpmd with --anchor device:/dev/tpmrm0 on a "
         "machine with a TPM"});
}

// Where the kernel or the limits of vtpmd do not permit a part of the engines' jail, it is left out.
void jail(const Context& context, Findings& findings) {
  const auto body = context.client().call("GET", "/healthz");
  const auto health = body ? parse_answer(*body) : body.error();
  if (!health || !health->contains("jail") || !(*health)["jail"].is_object())
    return;  // the daemon's check said so
  std::string lacking;
  for (const auto& [name, present] : (*health)["jail"].items())
    if (present == false) lacking += (lacking.empty() ? "" : ", ") + shown(json::Value(name));
  if (lacking.empty())
    findings.push_back({Health::Ok, "the engines' jail has all its parts", ""});
  else
    findings.push_back({Health::Warn, "the engines' jail is without: " + lacking,
                        "see \"The engines' jail\" in vtpmd(8); seccomp holds all the same"});
}

void socket_mode(const std::string& path, mode_t unwanted, const std::string& why, Findings& findings) {
  struct stat s {};
  if (::stat(path.c_str(), &s) != 0) return;  // the daemon's check has said so
  if ((s.st_mode & unwanted) != 0)
    findings.push_back({Health::Warn, path + " is open to all: " + why, "chmod o-rwx " + path});
  else
    findings.push_back({Health::Ok, path + ": permissions", ""});
}

void sockets(const Context& context, Findings& findings) {
  socket_mode(context.runtime_dir + "/vtpmd.sock", S_IRWXO, "every user can ask vtpmd", findings);
  struct stat s {};
  const std::string attach = context.runtime_dir + "/attach.sock";
  if (::stat(attach.c_str(), &s) != 0) return;
  if (S_ISSOCK(s.st_mode))
    findings.push_back({Health::Ok, attach + ": is a socket", ""});
  else
    findings.push_back({Health::Fail, attach + " is not a socket", "restart vtpmd"});
}

bool is_program(const std::string& name) {
  for (const char* directory :
       {"/usr/local/sbin/", "/usr/local/bin/", "/usr/sbin/", "/usr/bin/", "/sbin/", "/bin/"})
    if (::access((directory + name).c_str(), X_OK) == 0) return true;
  return false;
}

void runtimes(Findings& findings) {
  std::string found;
  for (const char* name : {"runc", "crun"})
    if (is_program(name)) found += (found.empty() ? "" : ", ") + std::string(name);
  if (found.empty())
    findings.push_back({Health::Warn, "neither runc nor crun is installed", "apt-get install runc"});
  else
    findings.push_back({Health::Ok, "OCI runtimes: " + found, ""});
}

// Every member "path" below `value`.
void collect_paths(const json::Value& value, std::vector<std::string>& paths) {
  for (const auto& [name, member] : value.items()) {
    if (name == "path" && member.is_string()) paths.push_back(member.get<std::string>());
    if (member.is_structured()) collect_paths(member, paths);
  }
}

// podman starts containers without their TPM when the hook that a hooks.d file names is missing.
void hook_document(const std::string& path, Findings& findings) {
  const auto bytes = read_file(path, kMaxDocument);
  const auto document = bytes ? json::parse(as_text(*bytes), kMaxDocument) : Error(ErrorCode::NotFound, path);
  if (!document || !document->is_object()) {
    findings.push_back(
        {Health::Fail, path + " cannot be read as JSON", "install it again (`vtpmctl oci --help`)"});
    return;
  }
  std::vector<std::string> hooks;
  collect_paths(*document, hooks);
  for (const auto& hook : hooks) {
    if (::access(hook.c_str(), X_OK) == 0) continue;
    findings.push_back({Health::Fail, path + " names " + shown(json::Value(hook)) + ", which is no program",
                        "install vtpm-hook there: podman skips a missing hook silently"});
    return;
  }
  findings.push_back({Health::Ok, path + " is installed", ""});
}

void engine_files(const std::string& what, const std::string& print_with,
                  std::initializer_list<const char*> places, Findings& findings) {
  bool found = false;
  for (const char* place : places) {
    if (!exists(place)) continue;
    found = true;
    hook_document(place, findings);
  }
  if (!found)
    findings.push_back({Health::Warn, what + " is not installed", print_with + " > " + *places.begin()});
}

}  // namespace

std::vector<Finding> examine(const Context& context) {
  Findings findings;
  fuse(findings);
  hardware_tpm(findings);
  daemon(context, findings);
  jail(context, findings);
  sockets(context, findings);
  runtimes(findings);
  engine_files("the hooks.d file of podman and CRI-O", "vtpmctl oci hooks-json",
               {"/usr/share/containers/oci/hooks.d/vtpm.json", "/etc/containers/oci/hooks.d/vtpm.json"},
               findings);
  engine_files("the CDI specification", "vtpmctl oci cdi", {"/etc/cdi/vtpm.json", "/var/run/cdi/vtpm.json"},
               findings);
  return findings;
}

}  // namespace vtpm::cli
