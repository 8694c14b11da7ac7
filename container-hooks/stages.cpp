// SPDX-License-Identifier: Apache-2.0
#include "container-hooks/stages.h"

#include <vtpm/control/attach.h>
#include <vtpm/device/cgroup.h>
#include <vtpm/device/fuse_node.h>
#include <vtpm/device/oci_state.h>
#include <vtpm/os/file.h>
#include <vtpm/os/process.h>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

namespace vtpm::hook {
namespace {

using control::NodeKind;
using device::FuseNode;
using device::OciState;

constexpr std::chrono::seconds kDeadline{10};

Result<OciState> read_state() {
  auto bytes = read_all(STDIN_FILENO, device::kMaxOciDocument);
  if (!bytes) return bytes.error().within("OCI state on standard input");
  auto state = device::parse_oci_state(as_text(*bytes));
  if (!state) return state.error().within("OCI state on standard input");
  return state;
}

// What this version cannot do is refused: a container must not start with less than it asked for.
Result<> check_supported(const device::TpmAnnotations& annotations) {
  if (annotations.policy)
    return Error(ErrorCode::Unsupported, "dev.vtpm.require-policy is not supported by this version");
  return {};
}

Result<struct stat> mount_namespace(const std::string& process) {
  const std::string path = "/proc/" + process + "/ns/mnt";
  struct stat s {};
  if (::stat(path.c_str(), &s) != 0) return errno_error(path, errno);
  return s;
}

// The container's first process. Its /proc entries were its own if it still lives after they were read.
Result<UniqueFd> open_container(const OciState& state) {
  if (state.pid == 0)
    return Error(ErrorCode::Malformed, "the OCI state has no pid: is this the createRuntime stage?");
  VTPM_TRY(auto pidfd, open_pidfd(state.pid));
  VTPM_TRY(const auto theirs, mount_namespace(std::to_string(state.pid)));
  VTPM_TRY(const auto ours, mount_namespace("self"));
  if (has_ended(pidfd.get())) return Error(ErrorCode::NotFound, "the container's process has ended");
  if (theirs.st_dev == ours.st_dev && theirs.st_ino == ours.st_ino)
    return Error(ErrorCode::Unsupported, "the container has no mount namespace of its own");
  return pidfd;
}

Result<UniqueFd> open_config(const OciState& state) {
  const std::string path = state.bundle + "/config.json";
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK));
  if (!fd) return errno_error(path, errno);
  struct stat s {};
  if (::fstat(fd.get(), &s) != 0 || !S_ISREG(s.st_mode))
    return Error(ErrorCode::Malformed, path + " is not a regular file");
  return fd;
}

Result<std::string> root_of(const OciState& state, const UniqueFd& config) {
  if (state.root) return *state.root;
  VTPM_TRY(const auto text, read_all(config.get(), device::kMaxOciDocument));
  // vtpmd reads the same open file.
  if (::lseek(config.get(), 0, SEEK_SET) != 0) return errno_error("config.json", errno);
  auto root = device::root_path(as_text(text), state.bundle);
  if (!root) return root.error().within(state.bundle + "/config.json");
  return root;
}

// The nodes of a container: the managed one, and with the standard names the raw one too.
struct Nodes {
  FuseNode managed;
  std::optional<FuseNode> raw;

  std::vector<device::Placement> placements() const {
    std::vector<device::Placement> list = {{"/dev/vtpm", &managed.mount}};
    if (!raw) return list;
    list.push_back({"/dev/tpmrm0", &managed.mount});
    list.push_back({"/dev/tpm0", &raw->mount});
    return list;
  }
};

Result<Nodes> make_nodes(bool standard_names) {
  VTPM_TRY(auto managed, device::make_fuse_node());
  Nodes nodes{std::move(managed), std::nullopt};
  if (standard_names) {
    VTPM_TRY(nodes.raw, device::make_fuse_node());
  }
  return nodes;
}

// cgroup.procs of the cgroup that is to pay for the TPM. Empty: vtpmd's own.
Result<UniqueFd> open_cgroup(const OciState& state, const UniqueFd& pidfd) {
  if (!state.annotations.in_its_cgroup) return UniqueFd();
  auto procs = device::open_cgroup_procs(pidfd.get());
  if (!procs) return procs.error().within("dev.vtpm.cgroup=container");
  return procs;
}

// What a launch hands to vtpmd besides the nodes.
struct Container {
  UniqueFd pidfd;
  UniqueFd config;
  UniqueFd cgroup;
};

Result<std::string> launch(const Options& options, const OciState& state, const Container& container,
                           const Nodes& nodes) {
  control::LaunchRequest message{state.id,
                                 state.annotations.image,
                                 state.annotations.name,
                                 state.annotations.durable,
                                 {NodeKind::Managed}};
  std::vector<int> fds = {container.pidfd.get(), container.config.get(), nodes.managed.server.get()};
  if (nodes.raw) {
    message.nodes.push_back(NodeKind::Raw);
    fds.push_back(nodes.raw->server.get());
  }
  if (container.cgroup) {
    message.cgroup = true;
    fds.push_back(container.cgroup.get());
  }
  return control::request(options.runtime_dir, message, fds, after(kDeadline));
}

Result<> give_tpm(const Options& options, const OciState& state) {
  VTPM_TRY_VOID(check_supported(state.annotations));
  Container container;
  VTPM_TRY(container.pidfd, open_container(state));
  VTPM_TRY(container.config, open_config(state));
  VTPM_TRY(container.cgroup, open_cgroup(state, container.pidfd));
  VTPM_TRY(const auto root, root_of(state, container.config));
  VTPM_TRY(const auto nodes, make_nodes(state.annotations.standard_names));
  auto instance = launch(options, state, container, nodes);
  if (!instance) return std::move(instance).error();
  auto placed = device::place_in_container(container.pidfd.get(), root, nodes.placements());
  if (!placed) {
    // vtpmd sees the end of the container as well; this only is quicker.
    static_cast<void>(
        control::request(options.runtime_dir, control::ReleaseRequest{state.id}, {}, after(kDeadline)));
  }
  return placed;
}

std::string_view advice(const Error& error) noexcept {
  if (error.kind() == ErrorCode::Unreachable)
    return " (start vtpmd, or start the container without the annotation dev.vtpm.enable)";
  if (error.kind() == ErrorCode::Conflict)
    return " (give the container no TPM of the host's, or set the annotation dev.vtpm.device-names=vtpm)";
  return "";
}

}  // namespace

Result<> create_runtime(const Options& options) {
  VTPM_TRY(const auto state, read_state());
  if (!state.annotations.enable && !options.enable) return {};
  const auto given = give_tpm(options, state);
  if (given) return {};
  const Error error = given.error();
  return Error(error.kind(),
               "no TPM for container " + state.id + ": " + error.context + std::string(advice(error)));
}

Result<> poststop(const Options& options) {
  VTPM_TRY(const auto state, read_state());
  if (!state.annotations.enable && !options.enable) return {};
  auto released =
      control::request(options.runtime_dir, control::ReleaseRequest{state.id}, {}, after(kDeadline));
  if (!released) return std::move(released).error();
  return {};
}

}  // namespace vtpm::hook
