// SPDX-License-Identifier: Apache-2.0
// What a device node does when it is opened, written, read and polled: as the Linux driver's /dev/tpm0
// (drivers/char/tpm/tpm-dev-common.c), except that a command with a wrong size is answered by a response, not
// by an errno. FORMATS.md, "Device file".
#pragma once

#include "daemon/engine/fuse_session.h"
#include "daemon/engine/tpm.h"

#include <vtpm/control/attach.h>

#include <functional>
#include <optional>
#include <vector>

namespace vtpm::engine {

using control::NodeKind;
class Node;

// The one open file that all nodes of a TPM share: until the managed node has a resource manager, a second
// open anywhere is EBUSY.
class Device {
 public:
  // Has the requests that wait at another node handled now: its last close may be among them.
  using Settle = std::function<void(Node&)>;

  Device(Tpm& tpm, Settle settle) : tpm_(tpm), settle_(std::move(settle)) {}

 private:
  friend class Node;
  struct OpenFile {
    const Node* node;
    std::uint64_t id;
    std::vector<std::uint32_t> handles_before;  // what was there when a managed node was opened
    Bytes response;
    std::size_t taken = 0;          // bytes of the response that were read
    std::uint64_t next_offset = 0;  // where the next part of the same write(2) would be
    bool waiting() const noexcept { return taken < response.size(); }
  };
  std::vector<std::uint32_t> volatile_handles();
  void flush_leftovers(const OpenFile& file);

  Tpm& tpm_;
  Settle settle_;
  Node* owner_ = nullptr;  // of the open file
  std::optional<OpenFile> file_;
  std::uint64_t last_id_ = 0;
};

// One node.
class Node final : public FuseFile {
 public:
  Node(Device& device, NodeKind kind) noexcept : device_(device), kind_(kind) {}
  ~Node() override;
  Node(const Node&) = delete;
  Node& operator=(const Node&) = delete;

  int open(std::uint64_t& file) override;
  void release(std::uint64_t file) override;
  int write(std::uint64_t file, std::uint64_t offset, BytesView data) override;
  int read(std::uint64_t file, std::uint32_t size, Bytes& out) override;
  std::uint32_t poll(std::uint64_t file) override;

 private:
  Device::OpenFile* find(std::uint64_t file) noexcept;
  int run(Device::OpenFile& open, BytesView command);

  Device& device_;
  const NodeKind kind_;
};

}  // namespace vtpm::engine
