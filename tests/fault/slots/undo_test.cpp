// SPDX-License-Identifier: Apache-2.0
// A real libtpms over a disk that fails: a command whose commit failed did not happen, neither in the TPM nor
// on disk, and its client was told so.
#include "daemon/engine/tpm.h"
#include "tests/fault/slots/faulty_disk.h"
#include "tests/support/catch_result.h"
#include "tests/support/durable.h"

#include <vtpm/space/resource_manager.h>

using namespace vtpm;
using namespace vtpm::test;
using engine::Slot;
using engine::Tpm;

namespace {

constexpr u32 kUnavailable = 0x923;
constexpr u32 kPersistent = 0x81000005;

// libtpms is process-global: one TPM for all tests here, each leaves it usable.
struct Machine {
  FaultyDisk disk;
  Tpm tpm;
  u32 object = 0;  // a loaded storage key

  Machine() {
    auto store = engine::SlotStore::open(test_owner(), 0, disk.open(0), disk.open(1));
    if (!store || !tpm.power_on_durable(std::move(*store)) || code(startup_clear()) != 0 ||
        code(nv_define(kIndex, 8)) != 0 || code(nv_write(kIndex, Bytes(8, 1))) != 0)
      std::abort();
    object = handle_in(run(create_primary(kOwner)));
  }

  Bytes run(BytesView command) {
    const auto response = tpm.process(tpm::Locality::tenant(), command);
    if (!response) std::abort();
    return {response->begin(), response->end()};
  }
  u32 code(BytesView command) { return code_of(run(command)); }
  // What a new kernel would continue from.
  engine::SlotContent stored() const {
    auto store =
        engine::SlotStore::open(test_owner(), tpm.sequence(), frozen(disk.stored(0)), frozen(disk.stored(1)));
    return store ? *store->take_loaded() : engine::SlotContent{};
  }
  Bytes on_disk() const { return stored().permanent; }
  Bytes permanent() const {
    const auto state = tpm.permanent_state();
    return {state.begin(), state.end()};
  }
  u32 property(u32 which) {
    const Bytes response = run(command(0x17a, Writer().add(u32{6}).add(which).add(u32{1})));
    return response.size() == 27 ? get_be<u32>(response, 23) : 0xffffffff;
  }
};

Machine& machine() {
  static Machine the_machine;
  return the_machine;
}

struct Change {
  const char* name;
  std::function<Bytes()> command;
};

const std::vector<Change>& changes() {
  static const std::vector<Change> all = {
      {"NV_Write", [] { return nv_write(kIndex, Bytes(8, 9)); }},
      {"NV_DefineSpace", [] { return nv_define(kIndex + 1, 2048); }},
      {"EvictControl", [] { return evict_control(machine().object, kPersistent); }},
      {"HierarchyChangeAuth",
       [] { return authorized(0x129, kEndorsement, Writer().add(u16{1}).add(Bytes{7})); }},
      {"Shutdown", [] { return command(0x145, Writer().add(u16{0})); }},
  };
  return all;
}

}  // namespace

TEST_CASE("a command whose commit fails is undone and answered NV_UNAVAILABLE; again, it succeeds") {
  Machine& m = machine();
  REQUIRE(m.code(pcr_extend(10, {{1}})) == 0);
  const Bytes pcr = pcr_value(m.run(pcr_read(10)));
  for (const auto& change : changes()) {
    for (const auto& faults : {std::deque{Fault::NoSpace},
                               {Fault::WriteError},
                               {Fault::HalfWritten},
                               {Fault::None, Fault::SyncLost},
                               {Fault::None, Fault::SyncHalf},
                               {Fault::None, Fault::SyncAll}}) {
      INFO(change.name << ", " << faults.size() << " calls, fault " << static_cast<int>(faults.back()));
      const Bytes command = change.command();
      const Bytes before = m.permanent();
      const Bytes value = m.run(nv_read(kIndex, 8));
      REQUIRE(m.on_disk() == before);
      m.disk.plan(faults);
      const Bytes random = m.run(get_random(16));
      REQUIRE(m.code(command) == kUnavailable);
      m.disk.repair();
      // In the TPM: permanent and volatile state, and its objects.
      CHECK(m.permanent() == before);
      CHECK(m.run(nv_read(kIndex, 8)) == value);
      CHECK(pcr_value(m.run(pcr_read(10))) == pcr);
      CHECK(m.code(read_public(m.object)) == 0);
      CHECK(m.run(get_random(16)) != random);
      CHECK(m.on_disk() == before);
    }
  }
  for (const auto& change : changes()) {
    INFO(change.name);
    const auto sequence = m.tpm.sequence();
    REQUIRE(m.code(change.command()) == 0);
    CHECK(m.tpm.sequence() > sequence);
    CHECK(m.on_disk() == m.permanent());
  }
  CHECK(nv_content(m.run(nv_read(kIndex, 8))) == Bytes(8, 9));
  CHECK(m.code(evict_control(kPersistent, kPersistent)) == 0);
}

TEST_CASE("a command with a failed short write but no error is a success") {
  Machine& m = machine();
  m.disk.plan({Fault::ShortWrite});
  CHECK(m.code(nv_write(kIndex, Bytes(8, 3))) == 0);
  CHECK(m.on_disk() == m.permanent());
}

TEST_CASE("a dead disk: what needs no NV is answered, and everything works once it is back") {
  Machine& m = machine();
  REQUIRE(m.code(pcr_extend(11, {{2}})) == 0);  // the first change after an orderly shutdown is noted in NV
  m.disk.die();
  for (int i = 0; i < 5; ++i) {
    CHECK(m.code(nv_write(kIndex, Bytes(8, 4))) == kUnavailable);
    CHECK(m.code(get_random(8)) == 0);
    CHECK(m.code(pcr_extend(11, {{2}})) == 0);
    CHECK(m.code(nv_read(kIndex, 8)) == 0);
  }
  m.disk.repair();
  CHECK(m.code(nv_write(kIndex, Bytes(8, 5))) == 0);
  CHECK(m.on_disk() == m.permanent());
}

TEST_CASE("TPM2_Clear whose commit fails clears nothing") {
  Machine& m = machine();
  const Bytes value = m.run(nv_read(kIndex, 8));
  REQUIRE(code_of(value) == 0);
  m.disk.plan({Fault::None, Fault::SyncHalf});
  CHECK(m.code(clear()) == kUnavailable);
  m.disk.repair();
  CHECK(m.run(nv_read(kIndex, 8)) == value);
  CHECK(m.code(read_public(m.object)) == 0);
}

TEST_CASE("the DRTM sequence whose commit fails is an error, and undone") {
  Machine& m = machine();
  // After an orderly shutdown the next change of state is noted in NV.
  REQUIRE(m.code(command(0x145, Writer().add(u16{0}))) == 0);
  const Bytes pcr = pcr_value(m.run(pcr_read(17)));
  m.disk.die();
  const auto sequence = m.tpm.hash_sequence(as_bytes("launch"));
  m.disk.repair();
  if (!sequence) CHECK(pcr_value(m.run(pcr_read(17))) == pcr);
  CHECK(m.tpm.hash_sequence(as_bytes("launch")));
  CHECK(pcr_value(m.run(pcr_read(17))) != pcr);
}

TEST_CASE("a wrong password counts although the disk does not take it") {
  Machine& m = machine();
  constexpr u32 kProtected = kIndex + 7;
  Writer area;
  area.add(kProtected).add(u16{0x000b}).add(u32{0x00040004}).add(u16{0}).add(u16{8});  // AUTHWRITE, AUTHREAD
  const Bytes password = {'p', 'w'};
  REQUIRE(m.code(authorized(
              0x12a, kOwner,
              Writer().add(u16{2}).add(password).add(static_cast<u16>(area.size())).add(area))) == 0);
  const auto write = [&](BytesView with) {
    return m.code(authorized_two(0x137, kProtected, kProtected,
                                 Writer().add(u16{8}).add(Bytes(8, 1)).add(u16{0}), with));
  };
  REQUIRE(write(password) == 0x922);  // TPM_RC_RETRY: the first use is noted
  REQUIRE(write(password) == 0);
  REQUIRE(m.property(kLockoutCounter) == 0);
  const Bytes wrong = {'n', 'o'};
  m.disk.die();
  CHECK(write(wrong) == kUnavailable);
  CHECK(m.property(kLockoutCounter) == 1);
  // Nobody guesses on while it cannot be recorded.
  CHECK(write(wrong) == kUnavailable);
  CHECK(write(password) == kUnavailable);
  CHECK(m.property(kLockoutCounter) == 1);
  m.disk.repair();
  CHECK(write(password) == 0);
  CHECK(m.property(kLockoutCounter) == 1);
  CHECK(m.on_disk() == m.permanent());
}

TEST_CASE("the failed tries that are stored are those that the TPM has counted") {
  Machine& m = machine();
  constexpr u32 kProtected = kIndex + 10;
  Writer area;
  area.add(kProtected).add(u16{0x000b}).add(u32{0x00040004}).add(u16{0}).add(u16{8});  // AUTHWRITE, AUTHREAD
  const auto wrong = [&] {
    return m.code(
        authorized_two(0x14e, kProtected, kProtected, Writer().add(u16{8}).add(u16{0}), Bytes{'n', 'o'}));
  };
  const auto set = [&](u32 code, BytesView parameters) {
    return m.code(authorized(code, 0x4000000a, parameters));
  };
  const auto counted = [&] {
    const auto tries = m.property(kLockoutCounter);
    CHECK(m.stored().failed_tries == tries);
    return tries;
  };
  REQUIRE(m.code(authorized(0x12a, kOwner,
                            Writer().add(u16{0}).add(static_cast<u16>(area.size())).add(area))) == 0);
  REQUIRE(set(0x139, {}) == 0);  // DictionaryAttackLockReset
  CHECK(counted() == 0);
  while (wrong() == 0x922)  // TPM_RC_RETRY
    continue;
  CHECK(wrong() == 0x98e);  // TPM_RC_AUTH_FAIL
  CHECK(counted() == 2);
  REQUIRE(set(0x13a, Writer().add(u32{32}).add(u32{1000}).add(u32{1000})) ==
          0);  // DictionaryAttackParameters
  CHECK(counted() == 2);
  REQUIRE(set(0x139, {}) == 0);
  CHECK(counted() == 0);
  CHECK(wrong() == 0x98e);
  CHECK(counted() == 1);
  REQUIRE(m.code(clear()) == 0);
  CHECK(counted() == 0);
  // As it was, for the others.
  REQUIRE(m.code(nv_define(kIndex, 8)) == 0);
  REQUIRE(m.code(nv_write(kIndex, Bytes(8, 1))) == 0);
  m.object = handle_in(m.run(create_primary(kOwner)));
}

namespace {

const Bytes kPinOfIndex = {'p', 'i', 'n'};

// An index of the type PIN Fail with that PIN, of which five may be wrong.
void define_pin(Machine& m, u32 index) {
  Writer area;
  // TPM_NT_PIN_FAIL, NO_DA, OWNERWRITE, AUTHREAD, OWNERREAD
  area.add(index).add(u16{0x000b}).add(u32{0x02060082}).add(u16{0}).add(u16{8});
  REQUIRE(m.code(authorized(
              0x12a, kOwner,
              Writer().add(u16{3}).add(kPinOfIndex).add(static_cast<u16>(area.size())).add(area))) == 0);
  REQUIRE(m.code(nv_write(index, Bytes{0, 0, 0, 0, 0, 0, 0, 5})) == 0);  // pinCount, pinLimit
}

Bytes read_by_pin(u32 index, BytesView pin) {
  return authorized_two(0x14e, index, index, Writer().add(u16{8}).add(u16{0}), pin);
}

}  // namespace

TEST_CASE("a wrong PIN counts although the disk does not take it") {
  Machine& m = machine();
  constexpr u32 kPin = kIndex + 8;
  define_pin(m, kPin);
  const auto read = [&](BytesView pin) { return m.code(read_by_pin(kPin, pin)); };
  REQUIRE(read(kPinOfIndex) == 0);
  const Bytes wrong = {'n', 'o'};
  REQUIRE(read(wrong) == 0x9a2);  // TPM_RC_BAD_AUTH
  m.disk.die();
  CHECK(read(wrong) == kUnavailable);
  CHECK(read(wrong) == kUnavailable);  // nobody guesses on
  m.disk.repair();
  CHECK(nv_content(m.run(nv_read(kPin, 8))) == Bytes{0, 0, 0, 2, 0, 0, 0, 5});
  CHECK(read(kPinOfIndex) == 0);
}

TEST_CASE("an exclusive audit session stays exclusive over commits") {
  Machine& m = machine();
  // Neither salted nor bound: with empty passwords its HMACs are empty.
  const u32 session = handle_in(m.run(command(0x176, Writer()
                                                         .add(u32{0x40000007})
                                                         .add(u32{0x40000007})
                                                         .add(u16{16})
                                                         .add(Bytes(16, 1))
                                                         .add(u16{0})
                                                         .add(u8{0})
                                                         .add(u16{0x0010})
                                                         .add(u16{0x000b}))));
  const auto write = [&](u8 attributes) {
    Writer rest;
    rest.add(kOwner).add(kIndex).add(u32{9}).add(session).add(u16{0}).add(attributes).add(u16{0});
    rest.add(u16{8}).add(Bytes(8, attributes)).add(u16{0});
    Bytes out = command(0x137, rest);
    out[1] = 0x02;  // TPM_ST_SESSIONS
    return m.code(out);
  };
  constexpr u8 kContinue = 0x01, kExclusive = 0x02, kAudit = 0x80;
  const auto sequence = m.tpm.sequence();
  CHECK(write(kContinue | kAudit) == 0);
  CHECK(write(kContinue | kAudit | kExclusive) == 0);  // nobody else used the TPM
  CHECK(write(kContinue | kAudit | kExclusive) == 0);
  CHECK(m.tpm.sequence() >= sequence + 2);
  // After what sets the number of failed tries, too: LockReset, Parameters.
  const auto set = [&](u32 code, BytesView parameters) {
    Writer rest;
    rest.add(u32{0x4000000a})
        .add(u32{9})
        .add(session)
        .add(u16{0})
        .add(u8{kContinue | kAudit | kExclusive})
        .add(u16{0});
    Bytes out = command(code, rest.add(parameters));
    out[1] = 0x02;  // TPM_ST_SESSIONS
    return m.code(out);
  };
  CHECK(set(0x139, {}) == 0);
  CHECK(set(0x13a, Writer().add(u32{32}).add(u32{1000}).add(u32{1000})) == 0);
  CHECK(write(kContinue | kAudit | kExclusive) == 0);
  REQUIRE(m.code(flush_context(session)) == 0);
}

TEST_CASE("a client that leaves while the disk fails leaves nothing behind") {
  Machine& m = machine();
  REQUIRE(m.code(flush_context(m.object)) == 0);  // it is no client's
  constexpr u32 kPin = kIndex + 9;
  define_pin(m, kPin);
  class Chip final : public space::Transmit {
   public:
    explicit Chip(Tpm& tpm) : tpm_(tpm) {}
    Result<BytesView> transmit(tpm::Locality locality, BytesView bytes) override {
      return tpm_.process(locality, bytes);
    }

   private:
    Tpm& tpm_;
  } chip(m.tpm);
  space::ResourceManager manager(chip);
  const auto run = [&](space::SpaceId space, BytesView bytes) {
    return std::get<Bytes>(
        manager.execute(space, tpm::Locality::tenant(), bytes, space::Clock::now()).value());
  };
  const Bytes policy_session = command(0x176, Writer()
                                                  .add(u32{0x40000007})
                                                  .add(u32{0x40000007})
                                                  .add(u16{16})
                                                  .add(Bytes(16, 1))
                                                  .add(u16{0})
                                                  .add(u8{1})
                                                  .add(u16{0x0010})
                                                  .add(u16{0x000b}));
  const auto leaving = manager.open(space::Kind::Managed).value();
  const auto staying = manager.open(space::Kind::Managed).value();
  for (int i = 0; i < 3; ++i)
    REQUIRE(code_of(run(leaving, create_primary(kOwner))) == 0);
  const u32 session = handle_in(run(leaving, policy_session));
  m.disk.die();
  REQUIRE(code_of(run(staying, nv_write(kIndex, Bytes(8, 6)))) == kUnavailable);
  REQUIRE(code_of(run(staying, read_by_pin(kPin, Bytes{'n', 'o'}))) == kUnavailable);
  manager.close(leaving);
  CHECK(code_of(run(staying, read_public(0x80000000))) != 0);
  m.disk.repair();
  CHECK(code_of(run(staying, read_public(0x80000000))) != 0);
  CHECK(code_of(run(staying, command(0x189, Writer().add(session)))) != 0);  // PolicyGetDigest
  for (int i = 0; i < 4; ++i)
    CHECK(code_of(run(staying, create_primary(kOwner))) == 0);
  manager.close(staying);
}
