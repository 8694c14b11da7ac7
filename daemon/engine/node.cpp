// SPDX-License-Identifier: Apache-2.0
#include "daemon/engine/node.h"

#include "daemon/engine/tpm_commands.h"

#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <utility>

namespace vtpm::engine {
namespace {

// Threads and processes that share an open file and wait in read(2).
constexpr std::size_t kMaxReaders = 8;
// A client whose signals come faster than its command ends, and that writes it again after each, gets it done
// at last.
constexpr unsigned kMaxCancelled = 3;

}  // namespace

OpenFile::OpenFile(Node& node, SpaceId space) : node_(node), space_(space) {
  readers_.reserve(kMaxReaders);  // a signal handler adds to them
}

int OpenFile::write(const FuseWrite& request) {
  if (std::exchange(lost_, false) || request.resent) return EIO;
  if ((busy_ || unread()) && request.offset > 0 && request.offset == next_offset_) {
    // A later part of a write(2) that was too long: by its first part it is answered.
    next_offset_ += request.data.size();
    return 0;
  }
  if (busy_ || unread()) return EBUSY;
  if (request.data.size() < tpm::kHeaderSize) return EINVAL;
  next_offset_ = request.offset + request.data.size();
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
  const bool failed = std::exchange(failed_, false) || std::exchange(lost_, false);
  if (!failed) out = take(request.size);
  wake_poller();
  return failed ? EIO : 0;
}

std::uint32_t OpenFile::events() const noexcept {
  if (lost_) return POLLERR | POLLIN | POLLRDNORM | POLLOUT | POLLWRNORM;
  if (failed_) return POLLERR | POLLIN | POLLRDNORM;
  if (readable()) return POLLIN | POLLRDNORM;
  return busy_ ? 0 : POLLOUT | POLLWRNORM;
}

// Who finds what it wants does not wait, whatever the kernel offers.
std::uint32_t OpenFile::poll(const FusePoll& request) noexcept {
  const auto now = events();
  if (request.waiter && (now & (request.events | POLLERR)) == 0) poller_ = request.waiter;
  return now;
}

void OpenFile::wake_poller() {
  if (poller_) node_.replies().wake(*std::exchange(poller_, std::nullopt));
}

bool OpenFile::cancels(std::uint64_t unique) const noexcept {
  if (!node_.device().runs(*this)) return false;
  if (unique == 0) return true;
  if (cancelled_ >= kMaxCancelled) return false;
  if (writer_ && writer_->unique == unique) return true;
  return std::any_of(readers_.begin(), readers_.end(),
                     [=](const Reader& reader) { return reader.unique == unique; });
}

bool OpenFile::interrupt(std::uint64_t unique) {
  if (writer_ && writer_->unique == unique) {
    // A command that runs is over before its client's signal is read.
    node_.device().withdraw(space_);
    busy_ = false;
    node_.replies().write_done(writer_->unique, EINTR, 0);
    writer_.reset();
    answer_readers();
    wake_poller();
    return true;
  }
  const auto reader =
      std::find_if(readers_.begin(), readers_.end(), [=](const Reader& r) { return r.unique == unique; });
  if (reader == readers_.end()) return false;
  readers_.erase(reader);
  node_.replies().read_done(unique, EINTR, {});
  return true;
}

// A write(2) whose command was cancelled has not happened: EINTR, and no response.
void OpenFile::answered(Bytes response) {
  const bool cancelled = is_cancelled(response);
  cancelled_ = cancelled ? cancelled_ + 1 : 0;
  if (cancelled && writer_)
    finish({}, EINTR);
  else
    finish(std::move(response), 0);
}

void OpenFile::failed() {
  finish({}, EIO);
}

void OpenFile::finish(Bytes response, int error) {
  busy_ = false;
  response_ = std::move(response);
  taken_ = 0;
  if (writer_) {
    node_.replies().write_done(writer_->unique, error, writer_->size);
    writer_.reset();
  } else {
    failed_ = error != 0;
  }
  answer_readers();
  wake_poller();
}

Bytes OpenFile::take(std::uint32_t size) {
  const auto left = BytesView(response_).subspan(taken_);
  const auto part = left.first(std::min<std::size_t>(size, left.size()));
  taken_ += part.size();
  return {part.begin(), part.end()};
}

// The first gets the response, the others what it leaves.
void OpenFile::answer_readers() {
  for (const auto& reader : readers_) {
    const int error = std::exchange(failed_, false) ? EIO : 0;
    node_.replies().read_done(reader.unique, error, take(reader.size));
  }
  readers_.clear();  // its memory stays
}

Node::~Node() {
  for (const auto& [id, file] : files_)
    device_.close(file.space());
}

const OpenFile* Node::find(std::uint64_t file) const noexcept {
  const auto found = files_.find(file);
  return found == files_.end() ? nullptr : &found->second;
}

OpenFile* Node::find(std::uint64_t file) noexcept {
  const auto found = files_.find(file);
  return found == files_.end() ? nullptr : &found->second;
}

OpenFile* Node::find_or_adopt(std::uint64_t file) {
  auto* open = find(file);
  // Not in a signal handler.
  if (open != nullptr || !adopts_ || device_.runs_one()) return open;
  const auto space = device_.open(kind_);
  if (!space) return nullptr;
  open = &files_.try_emplace(file, *this, *space).first->second;
  open->lose();
  return open;
}

int Node::open(std::uint64_t& file) {
  auto space = device_.open(kind_);
  if (!space) {
    settle_();
    space = device_.open(kind_);
  }
  if (!space) return EBUSY;
  file = device_.new_file_id();
  files_.try_emplace(file, *this, *space);
  return 0;
}

void Node::release(std::uint64_t file) {
  const auto* open = find(file);
  if (open == nullptr) return;
  device_.close(open->space());
  files_.erase(file);
}

int Node::write(const FuseWrite& request) {
  auto* open = find_or_adopt(request.file);
  return open == nullptr ? EIO : open->write(request);
}

int Node::read(const FuseRead& request, Bytes& out) {
  auto* open = find_or_adopt(request.file);
  return open == nullptr ? EIO : open->read(request, out);
}

std::uint32_t Node::poll(const FusePoll& request) {
  auto* open = find_or_adopt(request.file);
  return open == nullptr ? POLLERR : open->poll(request);
}

bool Node::busy(std::uint64_t file) const {
  const auto* open = find(file);
  return open != nullptr && open->busy();
}

bool Node::cancels(std::uint64_t file, std::uint64_t unique) const {
  if (file != 0) {
    const auto* open = find(file);
    return open != nullptr && open->cancels(0);
  }
  return std::any_of(files_.begin(), files_.end(),
                     [=](const auto& item) { return item.second.cancels(unique); });
}

void Node::interrupt(std::uint64_t unique) {
  for (auto& [id, file] : files_)
    if (file.interrupt(unique)) return;
}

}  // namespace vtpm::engine
