// SPDX-License-Identifier: Apache-2.0
#include "daemon/engine/node.h"

#include "daemon/engine/log.h"
#include "daemon/engine/tpm_commands.h"

#include <poll.h>

#include <algorithm>
#include <cerrno>

namespace vtpm::engine {

// Transient objects, and sessions whether loaded or saved.
std::vector<std::uint32_t> Device::volatile_handles() {
  std::vector<std::uint32_t> all;
  if (!tpm_.powered()) return all;
  for (const auto first : {kTransientFirst, kLoadedSessionFirst, kSavedSessionFirst}) {
    const auto some = handles_from(tpm_, first);
    all.insert(all.end(), some.begin(), some.end());
  }
  return all;
}

void Device::flush_leftovers(const OpenFile& file) {
  for (const auto handle : volatile_handles()) {
    const auto& before = file.handles_before;
    if (std::find(before.begin(), before.end(), handle) == before.end()) (void)flush_context(tpm_, handle);
  }
}

Node::~Node() {
  if (device_.owner_ == this && device_.file_) release(device_.file_->id);
}

Device::OpenFile* Node::find(std::uint64_t file) noexcept {
  auto& open = device_.file_;
  return open && open->node == this && open->id == file ? &*open : nullptr;
}

int Node::open(std::uint64_t& file) {
  if (device_.file_ && device_.owner_ != this) device_.settle_(*device_.owner_);
  if (device_.file_) return EBUSY;
  auto& open = device_.file_.emplace(Device::OpenFile{});
  open.node = device_.owner_ = this;
  open.id = file = ++device_.last_id_;
  if (kind_ == NodeKind::Managed) open.handles_before = device_.volatile_handles();
  return 0;
}

void Node::release(std::uint64_t file) {
  const auto* open = find(file);
  if (open == nullptr) return;
  if (kind_ == NodeKind::Managed) device_.flush_leftovers(*open);
  device_.file_.reset();
  device_.owner_ = nullptr;
}

int Node::write(std::uint64_t file, std::uint64_t offset, BytesView data) {
  auto* open = find(file);
  if (open == nullptr) return EIO;
  const bool unread = open->waiting() && open->taken == 0;
  if (unread && offset > 0 && offset == open->next_offset) {
    // A later part of a write(2) that was too long: its response waits already.
    open->next_offset += data.size();
    return 0;
  }
  if (unread) return EBUSY;
  if (data.size() < tpm::kHeaderSize) return EINVAL;
  open->next_offset = offset + data.size();
  return run(*open, data);
}

int Node::run(Device::OpenFile& open, BytesView command) {
  open.response.clear();
  open.taken = 0;
  const auto check = tpm::check_command(command);
  if (check.code != tpm::ResponseCode::Success) {
    open.response = tpm::error_response(check.code);
    return 0;
  }
  if (!device_.tpm_.powered()) return EIO;
  const auto response = device_.tpm_.process(tpm::Locality::tenant(), command);
  if (!response) {
    log_line(response.error().context);
    return EIO;
  }
  open.response.assign(response->begin(), response->end());
  return 0;
}

int Node::read(std::uint64_t file, std::uint32_t size, Bytes& out) {
  auto* open = find(file);
  if (open == nullptr) return EIO;
  const auto left = BytesView(open->response).subspan(open->taken);
  const auto part = left.first(std::min<std::size_t>(size, left.size()));
  put(out, part);
  open->taken += part.size();
  return 0;
}

std::uint32_t Node::poll(std::uint64_t file) {
  const auto* open = find(file);
  if (open == nullptr) return POLLERR;
  return open->waiting() ? POLLIN | POLLRDNORM : POLLOUT | POLLWRNORM;
}

}  // namespace vtpm::engine
