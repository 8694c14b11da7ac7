// SPDX-License-Identifier: Apache-2.0
// The real vtpm-engine: a zygote and its engines.
#include "tests/support/engine.h"

#include "tests/support/catch_result.h"

#include <vtpm/os/process.h>

#include <catch2/catch.hpp>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>

#include <set>

using namespace vtpm;
using namespace vtpm::test;
using tpm::Locality;

namespace {

constexpr std::chrono::seconds kWait{10};

ipc::SpawnedEngine spawn(ipc::Zygote& zygote) {
  auto engine = zygote.spawn();
  REQUIRE(engine);
  return std::move(*engine);
}

ipc::SpawnedEngine started(ipc::Zygote& zygote, BytesView permanent = {}) {
  auto engine = spawn(zygote);
  REQUIRE(engine.link->power_on(permanent));
  REQUIRE(code_of(run(*engine.link, startup_clear())) == 0);
  return engine;
}

bool ends(int pidfd) {
  pollfd p{pidfd, POLLIN, 0};
  return ::poll(&p, 1, 10000) == 1;
}

Locality locality(unsigned value) {
  return *Locality::make(value);
}

Bytes ek_of(ipc::EngineLink& link) {
  const Bytes response = run(link, create_primary(kEndorsement));
  REQUIRE(code_of(response) == 0);
  return public_in(response);
}

}  // namespace

TEST_CASE("engine: a new TPM starts and answers") {
  const auto zygote = start_zygote();
  const auto engine = started(*zygote);
  const Bytes response = run(*engine.link, get_random(16));
  CHECK(code_of(response) == 0);
  CHECK(response.size() == 10 + 2 + 16);
}

TEST_CASE("engine: PCR 17 and 18 obey localities") {
  const auto zygote = start_zygote();
  const auto engine = started(*zygote);
  const auto digest = tpm::sha256(as_bytes("a statement"));
  const auto extend = [&](u32 pcr, unsigned at) {
    return code_of(run(*engine.link, pcr_extend(pcr, digest), locality(at)));
  };
  constexpr u32 kRcLocality = 0x907;
  CHECK(extend(18, 0) == kRcLocality);
  CHECK(extend(17, 1) == kRcLocality);
  CHECK(extend(18, 3) == 0);
  CHECK(extend(16, 0) == 0);
}

TEST_CASE("engine: the hash sequence gives PCR 17 = SHA-256(zeros || SHA-256(data))") {
  const auto zygote = start_zygote();
  const auto engine = started(*zygote);
  CHECK(pcr_value(run(*engine.link, pcr_read(17))) == Bytes(32, 0xff));
  const auto data = GENERATE(Bytes{}, Bytes{1, 2, 3}, Bytes(65536, 0x5a));
  REQUIRE(engine.link->hash_sequence(data));
  const auto expected = tpm::extend(tpm::Sha256{}, tpm::sha256(data));
  CHECK(pcr_value(run(*engine.link, pcr_read(17))) == Bytes(expected.begin(), expected.end()));
  CHECK(pcr_value(run(*engine.link, pcr_read(18))) == Bytes(32, 0));
}

TEST_CASE("engine: permanent state continues in another engine with the same EK") {
  const auto zygote = start_zygote();
  const auto first = started(*zygote);
  const Bytes ek = ek_of(*first.link);
  const auto state = first.link->permanent_state();
  REQUIRE(state);
  const auto second = started(*zygote, *state);
  CHECK(ek_of(*second.link) == ek);
}

TEST_CASE("engine: permanent state larger than a frame travels whole") {
  const auto zygote = start_zygote();
  const auto first = started(*zygote);
  // NV indexes of 2048 bytes, written: TPM2_NV_DefineSpace and TPM2_NV_Write by the owner.
  for (u32 i = 0; i < 36; ++i) {
    const u32 index = 0x01800000 + i;
    Writer area;
    area.add(index).add(u16{0x000b}).add(u32{0x00020002}).add(u16{0}).add(u16{2048});  // OWNERWRITE,
                                                                                       // OWNERREAD
    Writer define;
    define.add(u16{0}).add(static_cast<u16>(area.size())).add(area);
    REQUIRE(code_of(run(*first.link, authorized(0x12a, kOwner, define))) == 0);
    for (u16 offset = 0; offset < 2048; offset = static_cast<u16>(offset + 1024)) {
      Bytes write = authorized(0x137, kOwner, Writer().add(u16{1024}).add(Bytes(1024, 7)).add(offset));
      // The index is a second handle, without authorization.
      const Bytes handle{u8(index >> 24), u8(index >> 16), u8(index >> 8), u8(index)};
      write.insert(write.begin() + 14, handle.begin(), handle.end());
      const auto size = static_cast<u32>(write.size());
      for (std::size_t byte = 0; byte < 4; ++byte)
        write[2 + byte] = static_cast<u8>(size >> (24 - 8 * byte));
      REQUIRE(code_of(run(*first.link, write)) == 0);
    }
  }
  const auto state = first.link->permanent_state();
  REQUIRE(state);
  REQUIRE(state->size() > ipc::kMaxPayload);
  const auto second = started(*zygote, *state);
  CHECK(second.link->permanent_state());
}

TEST_CASE("engine: damaged permanent state is refused as corrupt") {
  const auto zygote = start_zygote();
  const auto engine = spawn(*zygote);
  const auto result = engine.link->power_on(Bytes(1000, 0x11));
  REQUIRE_FALSE(result);
  CHECK(result.error().kind() == ErrorCode::Corrupt);
  // Refused, not fatal: the engine says why and serves on.
  CHECK(engine.link->power_on());
}

TEST_CASE("engine: a power cycle keeps permanent state and resets PCRs") {
  const auto zygote = start_zygote();
  const auto engine = started(*zygote);
  const Bytes ek = ek_of(*engine.link);
  REQUIRE(code_of(run(*engine.link, pcr_extend(10, {}))) == 0);
  REQUIRE(engine.link->shutdown());
  CHECK(engine.link->permanent_state());
  REQUIRE(engine.link->power_on());
  REQUIRE(code_of(run(*engine.link, startup_clear())) == 0);
  CHECK(pcr_value(run(*engine.link, pcr_read(10))) == Bytes(32, 0));
  CHECK(ek_of(*engine.link) == ek);
}

TEST_CASE("engines: each has its own EK and random stream") {
  const auto zygote = start_zygote();
  constexpr std::size_t kEngines = 20;
  std::set<Bytes> eks, randoms;
  for (std::size_t i = 0; i < kEngines; ++i) {
    const auto engine = started(*zygote);
    randoms.insert(run(*engine.link, get_random(32)));
    eks.insert(ek_of(*engine.link));
  }
  CHECK(eks.size() == kEngines);
  CHECK(randoms.size() == kEngines);
}

TEST_CASE("engines: a fork never sees a TPM: state before power-on is refused and fatal") {
  const auto zygote = start_zygote();
  const auto other = started(*zygote);  // an initialised TPM exists, but in another process
  const auto engine = spawn(*zygote);
  CHECK_FALSE(engine.link->permanent_state());
  CHECK(ends(engine.pidfd.get()));
}

TEST_CASE("engine: malformed commands get a response code") {
  const auto zygote = start_zygote();
  const auto engine = started(*zygote);
  Bytes lying = get_random(8);
  lying[5] = 200;
  CHECK(code_of(run(*engine.link, lying)) == 0x142);
  CHECK(code_of(run(*engine.link, {})) == 0x142);
  CHECK(code_of(run(*engine.link, Bytes(4097))) == 0x142);
  Bytes bad_tag = get_random(8);
  bad_tag[1] = 0x55;
  CHECK(code_of(run(*engine.link, bad_tag)) == 0x1e);
  CHECK(code_of(run(*engine.link, command(0x3fff))) == 0x143);
}

TEST_CASE("engine: its death is seen on the pidfd and told by the zygote") {
  const auto zygote = start_zygote();
  const auto engine = started(*zygote);
  const auto bystander = started(*zygote);
  CHECK_FALSE(has_ended(engine.pidfd.get()));
  REQUIRE(signal_process(engine.pidfd.get(), SIGKILL));
  REQUIRE(ends(engine.pidfd.get()));
  const auto exit = zygote->exit_of(engine.pid, kWait);
  REQUIRE(exit);
  CHECK(exit->describe() == "killed by signal 9 (SIGKILL)");
  const auto gone = engine.link->transmit(Locality::tenant(), get_random(8));
  REQUIRE_FALSE(gone);
  CHECK(gone.error().kind() == ErrorCode::Unreachable);
  CHECK(code_of(run(*bystander.link, get_random(8))) == 0);
}

TEST_CASE("engine: it ends in order when its link is destroyed") {
  const auto zygote = start_zygote();
  auto engine = started(*zygote);
  engine.link.reset();
  REQUIRE(ends(engine.pidfd.get()));
  const auto exit = zygote->exit_of(engine.pid, kWait);
  REQUIRE(exit);
  CHECK(exit->status == 0);
}

TEST_CASE("engine: an unpermitted verb ends that engine alone") {
  const auto zygote = start_zygote();
  const auto bystander = started(*zygote);
  const auto engine = started(*zygote);
  CHECK_FALSE(engine.link->power_on());  // it is on already
  REQUIRE(ends(engine.pidfd.get()));
  const auto exit = zygote->exit_of(engine.pid, kWait);
  REQUIRE(exit);
  CHECK(WEXITSTATUS(exit->status) == ipc::kExitProtocol);
  CHECK(code_of(run(*bystander.link, get_random(8))) == 0);
}

TEST_CASE("engine: it outlives the zygote") {
  auto zygote = start_zygote();
  const auto engine = started(*zygote);
  zygote.reset();
  CHECK(code_of(run(*engine.link, get_random(8))) == 0);
}

TEST_CASE("zygote: a dead one is unreachable and another can be started") {
  auto zygote = start_zygote();
  const auto engine = started(*zygote);
  REQUIRE(signal_process(zygote->pidfd(), SIGKILL));
  REQUIRE(ends(zygote->pidfd()));
  const auto refused = zygote->spawn();
  REQUIRE_FALSE(refused);
  CHECK(refused.error().kind() == ErrorCode::Unreachable);
  CHECK(code_of(run(*engine.link, get_random(8))) == 0);
  zygote = start_zygote();
  CHECK(zygote->spawn());
}

TEST_CASE("engine: SIGTERM and SIGINT, as from a terminal, do not end it") {
  const auto zygote = start_zygote();
  const auto engine = started(*zygote);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP})
    REQUIRE(signal_process(engine.pidfd.get(), signal));
  CHECK(code_of(run(*engine.link, get_random(8))) == 0);
}
