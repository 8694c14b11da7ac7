// SPDX-License-Identifier: Apache-2.0
// libtpms in the test's own process, as what a resource manager sits on. It is process-global: one per
// program, powered off and on between test cases.
#pragma once

#include "daemon/engine/slot_store.h"
#include "daemon/engine/tpm.h"

#include <vtpm/space/transmit.h>

#include <map>
#include <vector>

namespace vtpm::test {

class LocalTpm final : public space::Transmit {
 public:
  static LocalTpm& get() {
    static auto* const tpm = new LocalTpm;  // never destroyed: it needs statics that would be gone before it
    return *tpm;
  }

  // Off, on and TPM2_Startup(CLEAR); the counts begin anew. What is persistent stays.
  void power_cycle() {
    power_off();
    power_on();
    const Bytes startup{0x80, 0x01, 0, 0, 0, 12, 0, 0, 1, 0x44, 0, 0};
    (void)tpm_.process(tpm::Locality::tenant(), startup).value();
    counts.clear();
  }
  void power_off() noexcept { tpm_.power_off(); }
  void power_on() {
    if (const auto on = tpm_.power_on({}); !on) throw_exception_from_error(on.error(), {});
  }

  // From the next power cycle on it commits to these, before each response. Once.
  void make_durable(std::unique_ptr<engine::SlotFile> a, std::unique_ptr<engine::SlotFile> b) {
    auto slots = engine::SlotStore::open({{}, Secret(Bytes(32, 1))}, 0, std::move(a), std::move(b));
    if (!slots) throw_exception_from_error(slots.error(), {});
    if (const auto on = tpm_.power_on_durable(std::move(*slots)); !on)
      throw_exception_from_error(on.error(), {});
  }

  Result<BytesView> transmit(tpm::Locality locality, BytesView command) override {
    ++counts[get_be<std::uint32_t>(command, 6)];
    return tpm_.process(locality, command);
  }
  // TPM2_GetCapability(HANDLES), past the resource manager.
  std::vector<std::uint32_t> handles(std::uint32_t first) {
    Bytes ask{0x80, 0x01, 0, 0, 0, 22, 0, 0, 1, 0x7a, 0, 0, 0, 1};
    put_be(ask, first);
    put_be<std::uint32_t>(ask, 254);
    const BytesView response = tpm_.process(tpm::Locality::tenant(), ask).value();
    std::vector<std::uint32_t> found;
    for (std::size_t at = 19; at < response.size(); at += 4)
      found.push_back(get_be<std::uint32_t>(response, at));
    return found;
  }
  std::size_t commands() const {
    std::size_t n = 0;
    for (const auto& [code, count] : counts)
      n += count;
    return n;
  }

  std::map<std::uint32_t, std::size_t> counts;  // commands since the last power cycle, by TPM_CC

 private:
  engine::Tpm tpm_;
};

}  // namespace vtpm::test
