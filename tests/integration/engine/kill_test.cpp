// SPDX-License-Identifier: Apache-2.0
// SIGKILL of a durable engine at random moments, while NV is written, keys are made persistent, the TPM is
// cleared: what was acknowledged is there, what was not is there as a whole or not at all, and there is
// always a TPM. 50 rounds; VTPM_LONG=1: 2,000.
#include "tests/support/catch_result.h"
#include "tests/support/durable.h"

#include <chrono>
#include <cstdlib>
#include <random>
#include <thread>

using namespace vtpm;
using namespace vtpm::test;

namespace {

constexpr u32 kKey = 0x81000005;
constexpr u32 kNotWritten = 0x14a;  // TPM_RC_NV_UNINITIALIZED

// What a tenant sees of its TPM.
struct View {
  std::optional<Bytes> nv;  // the index is defined; its content, empty before the first write
  bool key = false;
  bool operator==(const View&) const = default;
};

std::ostream& operator<<(std::ostream& out, const View& view) {
  return out << "nv " << (view.nv ? std::to_string(view.nv->size()) + " bytes" : "none") << " "
             << (view.nv && !view.nv->empty() ? view.nv->front() : 0) << ", key " << view.key;
}

class Tenant {
 public:
  Tenant(ipc::Zygote& zygote, unsigned seed) : tpm_(zygote), random_(seed) {}

  void round() {
    REQUIRE(tpm_.spawn());
    switch (choose(5)) {
      case 0:
        kill_while_starting();
        break;
      case 1:
      case 2:
        kill_while_working();
        break;
      default:
        kill_when_acknowledged();
    }
    tpm_.kill();
    ++rounds_;
  }
  // After the last round.
  void finish() {
    REQUIRE(tpm_.spawn());
    REQUIRE(start());
    check();
    std::printf("%d rounds, %ld commands acknowledged; of %d in flight %d were found done\n", rounds_,
                acknowledged_, in_flight_, done_);
  }

 private:
  unsigned choose(unsigned below) { return std::uniform_int_distribution<unsigned>(0, below - 1)(random_); }

  std::thread killer_after(unsigned microseconds) {
    return std::thread([fd = tpm_.pidfd(), microseconds] {
      std::this_thread::sleep_for(std::chrono::microseconds(microseconds));
      (void)signal_process(fd, SIGKILL);
    });
  }

  // The power-on or the startup may be what is killed.
  void kill_while_starting() {
    std::thread killer = killer_after(choose(3'000));
    (void)start();
    killer.join();
  }
  // Mostly during a commit: that is where the time goes.
  void kill_while_working() {
    REQUIRE(start());
    check();
    std::thread killer = killer_after(choose(20'000));
    while (step()) {
    }
    killer.join();
  }
  // Right after a response, with nothing in flight.
  void kill_when_acknowledged() {
    REQUIRE(start());
    check();
    for (unsigned i = choose(8); i > 0; --i)
      REQUIRE(step());
  }

  // False: killed meanwhile. A refused state fails the test.
  bool start() {
    const auto sequence = tpm_.power_on_spawned(sequence_);
    if (!sequence) {
      INFO(sequence.error().context);
      REQUIRE(sequence.error().kind() == ErrorCode::Unreachable);
      return false;
    }
    const auto started = tpm_.link().transmit(tpm::Locality::tenant(), startup_clear());
    if (!started) return false;
    REQUIRE(code_of(*started) == 0);
    return true;
  }

  View observe() {
    View view;
    const Bytes read = tpm_.command(nv_read(kIndex, 8));
    if (code_of(read) == 0) view.nv = nv_content(read);
    if (code_of(read) == kNotWritten) view.nv = Bytes();
    view.key = code_of(tpm_.command(read_public(kKey))) == 0;
    return view;
  }
  void check() {
    const View now = observe();
    INFO("round " << rounds_ << ", acknowledged " << acknowledged_);
    if (pending_ && now == *pending_ && !(now == known_)) {
      ++done_;
      known_ = now;
    }
    REQUIRE(now == known_);
    pending_.reset();
    sequence_ = tpm_.link().status().value().sequence;
    const Bytes ek = public_in(tpm_.command(create_primary(kEndorsement)));
    if (ek_.empty()) ek_ = ek;
    REQUIRE(ek == ek_);
    (void)tpm_.command(flush_context(0x80000000));
  }

  // One command that changes what is seen to `after`. False: killed.
  bool change(BytesView command, const View& after) {
    pending_ = after;
    ++in_flight_;
    const auto response = tpm_.link().transmit(tpm::Locality::tenant(), command);
    if (!response) return false;
    REQUIRE(code_of(*response) == 0);
    --in_flight_;
    ++acknowledged_;
    known_ = after;
    pending_.reset();
    return true;
  }

  bool step() {
    View after = known_;
    const unsigned kind = choose(100);
    if (kind < 2) return change(clear(), View());
    if (!known_.nv) {
      after.nv = Bytes();
      return change(nv_define(kIndex, 8), after);
    }
    if (kind < 80) {
      after.nv = Bytes(8, static_cast<u8>(++counter_));
      return change(nv_write(kIndex, *after.nv), after);
    }
    after.key = !known_.key;
    if (known_.key) return change(evict_control(kKey, kKey), after);
    const auto made = tpm_.link().transmit(tpm::Locality::tenant(), create_primary(kOwner));
    if (!made) return false;
    REQUIRE(code_of(*made) == 0);
    if (!change(evict_control(handle_in(*made), kKey), after)) return false;
    return tpm_.link().transmit(tpm::Locality::tenant(), flush_context(handle_in(*made))).has_value();
  }

  DurableTpm tpm_;
  std::mt19937 random_;
  View known_;
  std::optional<View> pending_;
  Bytes ek_;
  std::uint64_t sequence_ = 0;
  unsigned counter_ = 0;
  int rounds_ = 0;
  int in_flight_ = 0;
  int done_ = 0;
  long acknowledged_ = 0;
};

}  // namespace

TEST_CASE("durable TPM: SIGKILL at any moment loses nothing that was acknowledged") {
  const auto zygote = start_zygote();
  const unsigned seed = std::random_device()();
  INFO("seed " << seed);
  Tenant tenant(*zygote, seed);
  const int rounds = std::getenv("VTPM_LONG") != nullptr ? 2000 : 50;
  for (int i = 0; i < rounds; ++i)
    tenant.round();
  tenant.finish();
}
