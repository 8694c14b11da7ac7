// SPDX-License-Identifier: Apache-2.0
// A resource manager on libtpms, and clients of it.
#pragma once

#include "tests/support/catch_result.h"
#include "tests/support/local_tpm.h"
#include "tests/support/tpm_wire.h"

#include <vtpm/space/resource_manager.h>
#include <vtpm/tpm/digest.h>

namespace vtpm::test {

struct Fixture {
  explicit Fixture(space::Limits limits = {}) : Fixture(LocalTpm::get(), limits) {}
  explicit Fixture(space::Transmit& transmit, space::Limits limits = {}) : manager(transmit, limits) {
    tpm.power_cycle();
  }

  LocalTpm& tpm = LocalTpm::get();
  space::ResourceManager manager;
  space::Clock::time_point now{std::chrono::hours(1)};
};

// One open file.
struct Client {
  explicit Client(Fixture& f, space::Kind kind = space::Kind::Managed)
      : fixture(f), id(f.manager.open(kind).value()) {}
  ~Client() { close(); }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  void close() {
    if (open) fixture.manager.close(id);
    open = false;
  }
  space::Outcome execute(BytesView command) {
    return fixture.manager.execute(id, tpm::Locality::tenant(), command, fixture.now).value();
  }
  bool waits(BytesView command) { return std::holds_alternative<space::SessionWait>(execute(command)); }
  Bytes operator()(BytesView command) { return std::get<Bytes>(execute(command)); }
  std::uint32_t code(BytesView command) { return wire::code_of((*this)(command)); }
  // The new handle. The command must succeed.
  std::uint32_t handle(BytesView command) {
    const Bytes response = (*this)(command);
    REQUIRE(wire::code_of(response) == 0);
    return wire::handle_of(response);
  }
  // The public area and the Names of an object, which tell it from others.
  Bytes public_of(std::uint32_t object) { return (*this)(wire::read_public(object)); }
  // The handles of TPM2_GetCapability(HANDLES).
  std::vector<std::uint32_t> handles(std::uint32_t first, std::uint32_t count = 254) {
    const Bytes response = (*this)(wire::get_capability(1, first, count));
    REQUIRE(wire::code_of(response) == 0);
    std::vector<std::uint32_t> out;
    for (std::size_t at = 19; at < response.size(); at += 4)
      out.push_back(get_be<std::uint32_t>(response, at));
    REQUIRE(get_be<std::uint32_t>(response, 15) == out.size());
    return out;
  }

  Fixture& fixture;
  space::SpaceId id;
  bool open = true;
};

}  // namespace vtpm::test
