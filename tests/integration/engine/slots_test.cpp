// SPDX-License-Identifier: Apache-2.0
// The supervisor's commands succeed although the tenant fills the TPM's three object slots.
#include "tests/support/catch_result.h"
#include "tests/support/engine.h"

#include <catch2/catch.hpp>

using namespace vtpm;
using namespace vtpm::test;

namespace {

// TPM2_ReadPublic needs the persistent object in a slot.
constexpr u32 kPersistent = 0x81000001;

Bytes read_public(u32 handle) {
  return command(0x173, Writer().add(handle));
}
Bytes flush(u32 handle) {
  return command(0x165, Writer().add(handle));
}

struct FullTpm {
  std::unique_ptr<ipc::Zygote> zygote = start_zygote();
  ipc::SpawnedEngine engine = std::move(*zygote->spawn());
  std::vector<u32> handles;
  std::vector<Bytes> publics;

  FullTpm() {
    REQUIRE(engine.link->power_on());
    REQUIRE(code_of(run(*engine.link, startup_clear())) == 0);
    const Bytes srk = run(*engine.link, create_primary(kOwner));
    REQUIRE(code_of(srk) == 0);
    REQUIRE(code_of(run(*engine.link, [&] {
              // TPM2_EvictControl(owner, object): the object is a second handle.
              Bytes evict = authorized(0x120, kOwner, Writer().add(kPersistent));
              const Bytes handle = {0x80, 0, 0, 0};
              evict.insert(evict.begin() + 14, handle.begin(), handle.end());
              evict[5] = static_cast<u8>(evict.size());
              return evict;
            }())) == 0);
    REQUIRE(code_of(run(*engine.link, flush(0x80000000))) == 0);
    for (int i = 0; i < 3; ++i) {
      const Bytes made = run(*engine.link, create_primary(i == 0 ? kEndorsement : kOwner));
      REQUIRE(code_of(made) == 0);
      handles.push_back(handle_in(made));
      publics.push_back(public_in(made));
    }
  }
};

}  // namespace

TEST_CASE("slots: with all three taken, a supervisor's command on a persistent key succeeds") {
  FullTpm tpm;
  auto& link = *tpm.engine.link;
  const Bytes response = run(link, read_public(kPersistent), tpm::Locality::supervisor());
  CHECK(code_of(response) == 0);
  // The tenant's objects are where they were, each the same.
  for (std::size_t i = 0; i < 3; ++i) {
    const Bytes read = run(link, read_public(tpm.handles[i]));
    REQUIRE(code_of(read) == 0);
    const auto size = get_be<u16>(read, 10);
    CHECK(Bytes(read.begin() + 12, read.begin() + 12 + size) == tpm.publics[i]);
  }
}

TEST_CASE("slots: a tenant's object never returns at another handle") {
  FullTpm tpm;
  auto& link = *tpm.engine.link;
  const Bytes made = run(link, create_primary(kOwner), tpm::Locality::supervisor());
  REQUIRE(code_of(made) == 0);
  REQUIRE(handle_in(made) == tpm.handles[0]);
  // Another slot is free before the one that the object had.
  REQUIRE(code_of(run(link, flush(tpm.handles[1]))) == 0);
  CHECK(code_of(run(link, read_public(tpm.handles[1]))) != 0);
  REQUIRE(code_of(run(link, flush(handle_in(made)), tpm::Locality::supervisor())) == 0);
  const Bytes read = run(link, read_public(tpm.handles[0]));
  REQUIRE(code_of(read) == 0);
  const auto size = get_be<u16>(read, 10);
  CHECK(Bytes(read.begin() + 12, read.begin() + 12 + size) == tpm.publics[0]);
}

TEST_CASE("slots: an object that the supervisor makes takes one, and the tenant's returns after its flush") {
  FullTpm tpm;
  auto& link = *tpm.engine.link;
  const Bytes made = run(link, create_primary(kOwner), tpm::Locality::supervisor());
  REQUIRE(code_of(made) == 0);
  REQUIRE(code_of(run(link, flush(handle_in(made)), tpm::Locality::supervisor())) == 0);
  for (std::size_t i = 0; i < 3; ++i) {
    const Bytes read = run(link, read_public(tpm.handles[i]));
    REQUIRE(code_of(read) == 0);
    const auto size = get_be<u16>(read, 10);
    CHECK(Bytes(read.begin() + 12, read.begin() + 12 + size) == tpm.publics[i]);
  }
}
