// SPDX-License-Identifier: Apache-2.0
// What the open files of a device node do when they are written, read and polled: as those of the Linux
// driver (drivers/char/tpm/tpm-dev-common.c), with the differences that FORMATS.md, "Device file", lists.
#pragma once

#include "daemon/engine/device.h"
#include "daemon/engine/fuse_session.h"

#include <functional>
#include <map>
#include <optional>
#include <vector>

namespace vtpm::engine {

class Node;

// One open file.
class OpenFile final : public Client {
 public:
  OpenFile(Node& node, SpaceId space);

  // It was opened with another engine, whose TPM is gone: the next use fails with EIO, once.
  void lose() noexcept { lost_ = true; }
  int write(const FuseWrite& request);
  int read(const FuseRead& request, Bytes& out);
  std::uint32_t poll(const FusePoll& request) noexcept;
  bool busy() const noexcept { return busy_; }
  // Whether an interrupt of this request, or the file's end (0), is one of its command that runs.
  bool cancels(std::uint64_t unique) const noexcept;
  // Gives up what the interrupted request waits for. Whether it was this file's.
  bool interrupt(std::uint64_t unique);
  SpaceId space() const noexcept { return space_; }

  void answered(Bytes response) override;
  void failed() override;

 private:
  struct Reader {
    std::uint64_t unique;
    std::uint32_t size;
  };

  std::uint32_t events() const noexcept;
  void wake_poller();
  bool unread() const noexcept { return !response_.empty() && taken_ == 0; }
  bool readable() const noexcept { return failed_ || taken_ < response_.size(); }
  void finish(Bytes response, int error);
  Bytes take(std::uint32_t size);
  void answer_readers();

  Node& node_;
  const SpaceId space_;
  bool busy_ = false;    // its command waits or runs
  bool failed_ = false;  // its command failed, which the next read is told
  bool lost_ = false;    // its objects and sessions are gone, which the next read or write is told
  Bytes response_;
  std::size_t taken_ = 0;            // bytes of the response that were read
  std::uint64_t next_offset_ = 0;    // where the next part of the same write(2) would be
  std::optional<FuseWrite> writer_;  // whose write(2) waits for the command to have run; without its data
  std::vector<Reader> readers_;      // whose read(2) waits for the response
  std::optional<std::uint64_t> poller_;
  unsigned cancelled_ = 0;  // commands in a row
};

class Node final : public FuseFile {
 public:
  // Has what waits at the instance's other nodes handled now.
  using Settle = std::function<void()>;

  Node(Device& device, NodeKind kind, Settle settle)
      : device_(device), kind_(kind), settle_(std::move(settle)) {}
  ~Node() override;
  Node(const Node&) = delete;
  Node& operator=(const Node&) = delete;

  // Files that another engine had opened are to be expected: each is a new client from its next use on.
  void adopt() noexcept { adopts_ = true; }
  void connect(FuseReplies& replies) override { replies_ = &replies; }
  int open(std::uint64_t& file) override;
  void release(std::uint64_t file) override;
  int write(const FuseWrite& request) override;
  int read(const FuseRead& request, Bytes& out) override;
  std::uint32_t poll(const FusePoll& request) override;
  void interrupt(std::uint64_t unique) override;
  bool busy(std::uint64_t file) const override;
  bool cancels(std::uint64_t file, std::uint64_t unique) const override;

  Device& device() noexcept { return device_; }
  FuseReplies& replies() noexcept { return *replies_; }
  NodeKind kind() const noexcept { return kind_; }
  bool empty() const noexcept { return files_.empty(); }

 private:
  OpenFile* find(std::uint64_t file) noexcept;
  const OpenFile* find(std::uint64_t file) const noexcept;
  OpenFile* find_or_adopt(std::uint64_t file);

  Device& device_;
  const NodeKind kind_;
  Settle settle_;
  FuseReplies* replies_ = nullptr;
  bool adopts_ = false;
  std::map<std::uint64_t, OpenFile> files_;
};

}  // namespace vtpm::engine
