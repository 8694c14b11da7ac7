// SPDX-License-Identifier: Apache-2.0
// Hostile clients of device nodes: the input is a program of FUSE requests to a managed and to a raw node of
// one real TPM, as the kernel would send them, with commands that are right, wrong or no commands, under a
// quota. What must hold: each request is answered once, none that was not asked is, and when the TPM has come
// to rest nobody waits any more.
#include "daemon/engine/fuse_session.h"
#include "daemon/engine/node.h"
#include "tests/support/tpm_wire.h"

#include <fcntl.h>
#include <fuzzer/FuzzedDataProvider.h>
#include <poll.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <thread>

using namespace vtpm;
using namespace vtpm::engine;
namespace wire = test::wire;

namespace {

void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "invariant: %s\n", what);
  std::abort();
}

Tpm& started_tpm() {
  static auto* const tpm = new Tpm;
  tpm->power_off();
  require(bool(tpm->power_on({})), "the TPM powers on");
  const Bytes startup{0x80, 0x01, 0, 0, 0, 12, 0, 0, 1, 0x44, 0, 0};
  require(bool(tpm->process(tpm::Locality::tenant(), startup)), "the TPM starts");
  return *tpm;
}

template <class T>
Bytes bytes_of(const T& value) {
  const auto* begin = reinterpret_cast<const std::uint8_t*>(&value);
  return {begin, begin + sizeof value};
}

// A mount, its kernel and the open files on it.
class Mount final : FuseChannel {
 public:
  Mount(Device& device, NodeKind kind) : node_(device, kind, [] {}) {
    fuse_init_in in{};
    in.major = FUSE_KERNEL_VERSION;
    in.minor = FUSE_KERNEL_MINOR_VERSION;
    (void)ask(FUSE_INIT, bytes_of(in), 0);
  }
  // Files of an engine that is dead may come.
  void adopt() { node_.adopt(); }

  void open() {
    opened_.reset();
    if (files_.size() < kMaxFiles) (void)ask(FUSE_OPEN, bytes_of(fuse_open_in{}), 0);
    if (opened_) files_.push_back(*opened_);
  }
  // The kernel releases a file when no request of it is under way.
  void release(std::uint64_t file) {
    for (const auto& [unique, of] : waiting_)
      if (of == file) return;
    fuse_release_in in{};
    in.fh = file;
    (void)ask(FUSE_RELEASE, bytes_of(in), 0);
    std::erase(files_, file);
  }
  void write(std::uint64_t file, BytesView data, std::uint64_t offset, std::uint32_t flags, bool resent) {
    fuse_write_in in{};
    in.fh = file;
    in.offset = offset;
    in.size = static_cast<std::uint32_t>(data.size());
    in.flags = flags;
    Bytes body = bytes_of(in);
    put(body, data);
    (void)ask(FUSE_WRITE, body, file, resent);
  }
  void read(std::uint64_t file, std::uint32_t size, std::uint32_t flags) {
    fuse_read_in in{};
    in.fh = file;
    in.size = size;
    in.flags = flags;
    (void)ask(FUSE_READ, bytes_of(in), file);
  }
  void poll(std::uint64_t file, std::uint32_t events) {
    fuse_poll_in in{};
    in.fh = file;
    in.kh = file + 1;
    in.flags = FUSE_POLL_SCHEDULE_NOTIFY;
    in.events = events;
    (void)ask(FUSE_POLL, bytes_of(in), file);
  }
  // Of a request that waits, or of one that never was.
  void interrupt(std::uint8_t which) {
    fuse_interrupt_in in{which};
    if (!waiting_.empty())
      in.unique = std::next(waiting_.begin(), which % static_cast<int>(waiting_.size()))->first;
    send_request(FUSE_INTERRUPT, bytes_of(in), ++unique_);
  }

  std::uint64_t file(std::uint8_t which) const {
    return files_.empty() || which >= 0xf0 ? which : files_[which % files_.size()];
  }
  void answer_polls() { session_.answer_polls(); }
  bool at_rest() const { return waiting_.empty(); }
  void release_all() {
    while (!files_.empty())
      release(files_.back());
  }

 private:
  static constexpr std::size_t kMaxFiles = 8;

  // Every request but an interrupt is owed one reply.
  std::uint64_t ask(std::uint32_t opcode, BytesView body, std::uint64_t file, bool resent = false) {
    const std::uint64_t unique = ++unique_ | (resent ? 1ULL << 63 : 0);
    waiting_.emplace(unique, file);
    send_request(opcode, body, unique);
    return unique;
  }
  void send_request(std::uint32_t opcode, BytesView body, std::uint64_t unique) {
    fuse_in_header head{};
    head.len = static_cast<std::uint32_t>(sizeof head + body.size());
    head.opcode = opcode;
    head.unique = unique;
    head.nodeid = FUSE_ROOT_ID;
    Bytes request = bytes_of(head);
    put(request, body);
    session_.handle(request);
  }

  bool send(BytesView frame) override {
    fuse_out_header head{};
    require(frame.size() >= sizeof head, "a frame has a header");
    std::memcpy(&head, frame.data(), sizeof head);
    require(head.len == frame.size(), "a frame tells its size");
    if (head.unique == 0) return true;  // a notification
    require(waiting_.erase(head.unique) == 1, "a reply answers a request, once");
    require(head.error <= 0 && head.error > -4096, "an error is an errno");
    fuse_open_out open{};
    if (head.error == 0 && frame.size() == sizeof head + sizeof open) {
      std::memcpy(&open, frame.data() + sizeof head, sizeof open);
      opened_ = open.fh;
    }
    return true;
  }

  std::uint64_t unique_ = 1000;
  std::map<std::uint64_t, std::uint64_t> waiting_;  // the file of each
  std::optional<std::uint64_t> opened_;
  std::vector<std::uint64_t> files_;
  Node node_;
  FuseSession session_{node_, *this};
};

Bytes some_command(FuzzedDataProvider& input) {
  const auto byte = [&] { return input.ConsumeIntegral<std::uint8_t>(); };
  const std::uint32_t transient = 0x80000000U + byte() % 4;
  switch (byte() % 10) {
    case 0:
      return wire::create_primary(wire::kNull, "a");
    case 1:
      return wire::start_session(wire::SessionType::Policy);
    case 2:
      return wire::flush(transient);
    case 3:
      return wire::read_public(transient);
    case 4:
      return wire::hash_sequence_start();
    case 5:
      return wire::sequence_update(transient, "part");
    case 6:
      return wire::get_capability(1, 0x80000000, 8);
    case 7:
      return Bytes(tpm::kBufferMax + byte(), byte());
    case 8: {
      const auto size = static_cast<std::size_t>(byte());
      return input.ConsumeBytes<std::uint8_t>(size);
    }
    default:
      return wire::get_random();
  }
}

void step(FuzzedDataProvider& input, Mount& mount) {
  const auto byte = [&] { return input.ConsumeIntegral<std::uint8_t>(); };
  const std::uint64_t file = mount.file(byte());
  const std::uint32_t flags = input.ConsumeBool() ? O_NONBLOCK : 0;
  switch (byte() % 8) {
    case 0:
      return mount.open();
    case 1:
      return mount.release(file);
    case 2:
    case 3:
      return mount.write(file, some_command(input), byte() % 4 == 0 ? byte() : 0, flags, byte() > 0xf0);
    case 4:
    case 5:
      return mount.read(file, input.ConsumeIntegral<std::uint16_t>(), flags);
    case 6:
      return mount.poll(file, byte() % 2 == 0 ? POLLIN : POLLOUT);
    default:
      return mount.interrupt(byte());
  }
}

// As the engine's loop does.
std::optional<Device::Time> run_one(Device& device, Mount& managed, Mount& raw) {
  const auto next = device.run_one(FairQueue::Clock::now());
  managed.answer_polls();
  raw.answer_polls();
  return next;
}

void come_to_rest(Device& device, Mount& managed, Mount& raw) {
  for (int turns = 0;; ++turns) {
    require(turns < 10'000, "the queue empties");
    const auto next = run_one(device, managed, raw);
    if (!next) return;
    std::this_thread::sleep_until(*next);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  FuzzedDataProvider input(bytes, size);
  Device device(started_tpm());
  ipc::EngineLimits limits;
  limits.spaces = 6;
  limits.sessions_per_space = 4;
  if (input.ConsumeBool()) {
    limits.commands_per_second = 2000;
    limits.command_burst = 3;
  }
  device.set_limits(limits);
  Mount managed(device, NodeKind::Managed), raw(device, NodeKind::Raw);
  if (input.ConsumeBool()) managed.adopt();
  for (int steps = 0; input.remaining_bytes() > 0 && steps < 120; ++steps) {
    const auto what = input.ConsumeIntegral<std::uint8_t>();
    if (what % 4 == 0)
      (void)run_one(device, managed, raw);
    else
      step(input, what % 4 == 1 ? raw : managed);
  }
  come_to_rest(device, managed, raw);
  require(managed.at_rest() && raw.at_rest(), "nobody waits when the TPM is at rest");
  managed.release_all();
  raw.release_all();
  come_to_rest(device, managed, raw);
  return 0;
}
