// SPDX-License-Identifier: Apache-2.0
#include "daemon/engine/node.h"

#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <utility>

namespace vtpm::engine {
namespace {

// Threads and processes that share an open file and wait in read(2).
constexpr std::size_t kMaxReaders = 64;

}  // namespace

int OpenFile::write(const FuseWrite& request) {
  if (busy_) return EBUSY;
  if (unread() && request.offset > 0 && request.offset == next_offset_) {
    // A later part of a write(2) that was too long: its response waits already.
    next_offset_ += request.data.size();
    return 0;
  }
  if (unread()) return EBUSY;
  if (request.data.size() < tpm::kHeaderSize) return EINVAL;
  next_offset_ = request.offset + request.data.size();
  const auto check = tpm::check_command(request.data);
  if (check.code != tpm::ResponseCode::Success) {
    finish(tpm::error_response(check.code), false);
    return 0;
  }
  response_.clear();
  taken_ = 0;
  busy_ = true;
  failed_ = false;
  node_.device().submit(space_, *this, Bytes(request.data.begin(), request.data.end()),
                        FairQueue::Clock::now());
  if (!request.wait) return 0;
  writer_ = request;
  return kLater;
}

int OpenFile::read(const FuseRead& request, Bytes& out) {
  if (busy_) {
    if (!request.wait || readers_.size() == kMaxReaders) return EAGAIN;
    readers_.push_back({request.unique, request.size});
    return kLater;
  }
  if (std::exchange(failed_, false)) return EIO;
  out = take(request.size);
  return 0;
}

std::uint32_t OpenFile::poll() const noexcept {
  if (failed_) return POLLERR | POLLIN | POLLRDNORM;
  if (readable()) return POLLIN | POLLRDNORM;
  return busy_ ? 0 : POLLOUT | POLLWRNORM;
}

bool OpenFile::interrupt(std::uint64_t unique) {
  if (writer_ && writer_->unique == unique) {
    // A command that runs is over before its client's signal is read.
    node_.device().withdraw(space_);
    busy_ = false;
    node_.replies().write_done(writer_->unique, EINTR, 0);
    writer_.reset();
    answer_readers();
    node_.replies().changed(id_);
    return true;
  }
  const auto reader =
      std::find_if(readers_.begin(), readers_.end(), [=](const Reader& r) { return r.unique == unique; });
  if (reader == readers_.end()) return false;
  readers_.erase(reader);
  node_.replies().read_done(unique, EINTR, {});
  return true;
}

void OpenFile::answered(Bytes response) {
  finish(std::move(response), false);
}

void OpenFile::failed() {
  finish({}, true);
}

void OpenFile::finish(Bytes response, bool failed) {
  busy_ = false;
  response_ = std::move(response);
  taken_ = 0;
  if (writer_) {
    const int error = failed ? EIO : 0;
    node_.replies().write_done(writer_->unique, error, static_cast<std::uint32_t>(writer_->size));
    writer_.reset();
  } else {
    failed_ = failed;
  }
  answer_readers();
  node_.replies().changed(id_);
}

Bytes OpenFile::take(std::uint32_t size) {
  const auto left = BytesView(response_).subspan(taken_);
  const auto part = left.first(std::min<std::size_t>(size, left.size()));
  taken_ += part.size();
  return {part.begin(), part.end()};
}

// The first gets the response, the others what it leaves.
void OpenFile::answer_readers() {
  for (const auto& reader : std::exchange(readers_, {})) {
    const int error = std::exchange(failed_, false) ? EIO : 0;
    node_.replies().read_done(reader.unique, error, take(reader.size));
  }
}

Node::~Node() {
  for (const auto& [id, file] : files_)
    device_.close(file.space());
}

OpenFile* Node::find(std::uint64_t file) noexcept {
  const auto found = files_.find(file);
  return found == files_.end() ? nullptr : &found->second;
}

int Node::open(std::uint64_t& file) {
  auto space = device_.open(kind_);
  if (!space) {
    settle_(*this);
    space = device_.open(kind_);
  }
  if (!space) return EBUSY;
  file = device_.new_file_id();
  files_.try_emplace(file, *this, file, *space);
  return 0;
}

void Node::release(std::uint64_t file) {
  const auto* open = find(file);
  if (open == nullptr) return;
  device_.close(open->space());
  files_.erase(file);
}

int Node::write(const FuseWrite& request) {
  auto* open = find(request.file);
  return open == nullptr ? EIO : open->write(request);
}

int Node::read(const FuseRead& request, Bytes& out) {
  auto* open = find(request.file);
  if (open == nullptr) return EIO;
  const int error = open->read(request, out);
  if (error != kLater) replies_->changed(request.file);
  return error;
}

std::uint32_t Node::poll(std::uint64_t file) {
  const auto* open = find(file);
  return open == nullptr ? POLLERR : open->poll();
}

void Node::interrupt(std::uint64_t unique) {
  for (auto& [id, file] : files_)
    if (file.interrupt(unique)) return;
}

}  // namespace vtpm::engine
