// SPDX-License-Identifier: Apache-2.0
#include "cli/arguments.h"
#include "cli/nodes.h"
#include "cli/output.h"
#include "cli/verbs.h"

#include <vtpm/control/attach.h>
#include <vtpm/device/fuse_node.h>
#include <vtpm/device/socket_node.h>

#include <CLI/CLI.hpp>
#include <sys/stat.h>

#include <memory>
#include <optional>

namespace vtpm::cli {
namespace {

using control::Backend;
using control::NodeKind;

constexpr std::chrono::seconds kDeadline{30};

struct Options {
  std::string id;
  std::string path;
  bool raw = false;
  std::string backend = "auto";
  std::string mode;
};

Result<Backend> backend_of(const std::string& name) {
  if (name == "auto") return Backend::Fuse;
  if (auto backend = control::backend_from(name)) return backend;
  return Error(ErrorCode::Unsupported,
               "this version makes nodes with --backend fuse and socket only, not " + name);
}

// Nothing: none was given.
Result<std::optional<mode_t>> mode_of(const Options& options, Backend backend) {
  if (options.mode.empty()) return std::optional<mode_t>();
  if (backend != Backend::Socket)
    return Error(ErrorCode::Malformed,
                 "--mode is for --backend socket: a device file is open to all who reach it, its directory "
                 "decides who does");
  VTPM_TRY(const mode_t mode, mode_from("--mode", options.mode));
  return std::optional(mode);
}

Result<UniqueFd> make_socket(const std::string& path, std::optional<mode_t> mode) {
  if (!mode) return device::make_socket_node(path);
  ::umask(0);  // what is asked for is what it gets
  return device::make_socket_node(path, *mode);
}

// Makes a node at the path; the server's end.
Result<UniqueFd> make_node(Backend backend, const std::string& path, std::optional<mode_t> mode) {
  if (backend == Backend::Socket) return make_socket(path, mode);
  auto node = device::make_fuse_node();
  if (!node && node.error().kind() == ErrorCode::PermissionDenied)
    return node.error().within("making a device node needs root (CAP_SYS_ADMIN), but for --backend socket");
  if (!node) return node.error();
  VTPM_TRY_VOID(device::place(node->mount, path));
  return std::move(node->server);
}

void take_back(Backend backend, const UniqueFd& server, const std::string& path) {
  if (backend == Backend::Socket)
    device::take_back_socket_node(server, path);
  else
    static_cast<void>(device::remove_node(path));
}

// The node is placed before vtpmd hears of it, so that a path that is taken is none of its affairs; who opens
// it meanwhile waits.
Result<int> attach(const Context& context, const Options& options) {
  VTPM_TRY(const auto path, absolute_path(options.path));
  VTPM_TRY(const auto backend, backend_of(options.backend));
  VTPM_TRY(const auto mode, mode_of(options, backend));
  VTPM_TRY(const auto server, make_node(backend, path, mode));
  const control::AttachRequest message{options.id, options.raw ? NodeKind::Raw : NodeKind::Managed, path,
                                       backend};
  const int descriptor = server.get();
  const auto id = control::request(context.runtime_dir, message, std::span(&descriptor, 1), after(kDeadline));
  if (!id) {
    take_back(backend, server, path);
    return id.error();
  }
  if (context.json) {
    VTPM_TRY_VOID(print_json({{"instance", *id},
                              {"node", to_string(message.node)},
                              {"path", path},
                              {"backend", to_string(backend)}}));
  }
  return kDone;
}

}  // namespace

void add_attach(CLI::App& app, Context& context) {
  const auto options = std::make_shared<Options>();
  auto* verb = add_verb(app, context, "attach",
                        "Make a device node of a TPM at a path here (needs root, but for a socket)",
                        [&context, options] { return attach(context, *options); });
  verb->add_option("id", options->id, "Its id, the beginning of it, or its name")->required();
  verb->add_option("--path", options->path, "Where: a path that is free, or, but for a socket, an empty file")
      ->required();
  verb->add_flag("--raw", options->raw,
                 "The TPM itself (as /dev/tpm0), not the managed node (as /dev/tpmrm0)");
  verb->add_option("--backend", options->backend, "How the node is made")
      ->check(CLI::IsMember({"auto", "proxy", "cuse", "fuse", "socket"}))
      ->capture_default_str();
  verb->add_option("--mode", options->mode, "Of a socket: who may connect, as octal digits [600]");
}

}  // namespace vtpm::cli
