// SPDX-License-Identifier: Apache-2.0
// A durable TPM for tests: two slot files in a directory, real engines on them, and NV commands.
#pragma once

#include "tests/support/engine.h"
#include "tests/support/temporary_directory.h"

#include <vtpm/os/file.h>
#include <vtpm/os/process.h>

#include <fcntl.h>
#include <poll.h>
#include <signal.h>

namespace vtpm::test {

class DurableTpm {
 public:
  explicit DurableTpm(ipc::Zygote& zygote) : zygote_(zygote) {}

  std::string slot(char name) const { return directory_.path(std::string("slot-") + name); }
  UniqueFd open_slot(char name) const { return open_file(slot(name)); }
  static UniqueFd open_file(const std::string& path) {
    UniqueFd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    if (!fd) std::abort();
    return fd;
  }

  // A new engine, in place of the one before, which ends in order. Powered on, not started.
  Result<std::uint64_t> power_on(std::uint64_t least = 0) {
    return power_on_with(open_slot('a'), open_slot('b'), least);
  }
  Result<std::uint64_t> power_on_with(UniqueFd a, UniqueFd b, std::uint64_t least = 0) {
    VTPM_TRY_VOID(spawn());
    return engine_->link->power_on_durable(id, key, least, std::move(a), std::move(b));
  }
  // The two steps of power_on().
  Result<> spawn() {
    end();
    VTPM_TRY(engine_, zygote_.spawn());
    return {};
  }
  Result<std::uint64_t> power_on_spawned(std::uint64_t least) {
    return engine_->link->power_on_durable(id, key, least, open_slot('a'), open_slot('b'));
  }
  // And Startup(CLEAR).
  bool start(std::uint64_t least = 0) {
    const auto sequence = power_on(least);
    if (sequence) return code_of(run(link(), startup_clear())) == 0;
    std::fprintf(stderr, "power-on: %s\n", sequence.error().context.c_str());
    return false;
  }
  // In order: TPM2_Shutdown, then the process is gone.
  void end() {
    if (!engine_) return;
    engine_->link.reset();
    wait();
  }
  void kill() {
    (void)signal_process(engine_->pidfd.get(), SIGKILL);
    wait();
  }

  ipc::EngineLink& link() { return *engine_->link; }
  int pidfd() const { return engine_->pidfd.get(); }
  Bytes command(BytesView bytes) { return run(link(), bytes); }

  ipc::InstanceIdBytes id{1, 2, 3, 4, 5, 6, 7, 8};
  Secret key{Bytes(32, 0x5a)};

 private:
  void wait() {
    pollfd ended{engine_->pidfd.get(), POLLIN, 0};
    if (::poll(&ended, 1, 20'000) != 1) std::abort();
    engine_.reset();
  }

  TemporaryDirectory directory_;
  ipc::Zygote& zygote_;
  std::optional<ipc::SpawnedEngine> engine_;
};

// A command with two handles, the first authorized by a password.
inline Bytes authorized_two(u32 code, u32 handle, u32 other, BytesView parameters, BytesView password = {}) {
  Writer rest;
  rest.add(handle).add(other).add(static_cast<u32>(9 + password.size())).add(u32{0x40000009}).add(u16{0});
  rest.add(u8{0}).add(static_cast<u16>(password.size())).add(password).add(parameters);
  Bytes out = command(code, rest);
  out[1] = 0x02;  // TPM_ST_SESSIONS
  return out;
}

// An NV index of the owner.
inline constexpr u32 kIndex = 0x01800001;
inline Bytes nv_define(u32 index, u16 size) {
  Writer area;
  area.add(index).add(u16{0x000b}).add(u32{0x00020002}).add(u16{0}).add(size);  // OWNERWRITE, OWNERREAD
  return authorized(0x12a, kOwner, Writer().add(u16{0}).add(static_cast<u16>(area.size())).add(area));
}
inline Bytes nv_write(u32 index, BytesView content, u16 offset = 0) {
  return authorized_two(0x137, kOwner, index,
                        Writer().add(static_cast<u16>(content.size())).add(content).add(offset));
}
inline Bytes nv_read(u32 index, u16 size) {
  return authorized_two(0x14e, kOwner, index, Writer().add(size).add(u16{0}));
}
// What a successful nv_read read.
inline Bytes nv_content(BytesView response) {
  if (code_of(response) != 0 || response.size() < 16) return {};
  const auto content = response.subspan(16, get_be<u16>(response, 14));
  return {content.begin(), content.end()};
}
inline Bytes evict_control(u32 object, u32 persistent) {
  return authorized_two(0x120, kOwner, object, Writer().add(persistent));
}
inline Bytes flush_context(u32 handle) {
  return command(0x165, Writer().add(handle));
}
inline Bytes read_public(u32 handle) {
  return command(0x173, Writer().add(handle));
}
inline Bytes clear() {
  return authorized(0x126, 0x4000000a, {});
}
// The value of a TPM_PT, or all ones.
inline u32 tpm_property(ipc::EngineLink& link, u32 property) {
  const Bytes response = run(link, command(0x17a, Writer().add(u32{6}).add(property).add(u32{1})));
  return response.size() == 27 ? get_be<u32>(response, 23) : 0xffffffff;
}
inline constexpr u32 kLockoutCounter = 0x20e;

}  // namespace vtpm::test
