// SPDX-License-Identifier: Apache-2.0
// The supervisor's commands succeed although a tenant, at the raw node, fills the TPM's three object slots.
#include "tests/integration/fuse_node/served.h"

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
  Served served;
  UniqueFd tenant = open_node(served.raw);
  std::vector<u32> handles;
  std::vector<Bytes> publics;

  ipc::EngineLink& link() { return *served.engine.link; }
  FullTpm() {
    const Bytes srk = run(link(), create_primary(kOwner));
    REQUIRE(code_of(srk) == 0);
    REQUIRE(code_of(run(link(), [&] {
              // TPM2_EvictControl(owner, object): the object is a second handle.
              Bytes evict = authorized(0x120, kOwner, Writer().add(kPersistent));
              const Bytes handle(srk.begin() + 10, srk.begin() + 14);
              evict.insert(evict.begin() + 14, handle.begin(), handle.end());
              evict[5] = static_cast<u8>(evict.size());
              return evict;
            }())) == 0);
    REQUIRE(code_of(run(link(), flush(handle_in(srk)))) == 0);
    for (int i = 0; i < 3; ++i) {
      const Bytes made = ask(tenant, create_primary(i == 0 ? kEndorsement : kOwner));
      REQUIRE(code_of(made) == 0);
      handles.push_back(handle_in(made));
      publics.push_back(public_in(made));
    }
    REQUIRE(code_of(ask(tenant, create_primary(kOwner))) == 0x902);
  }
  // The tenant's object is where it was, and the same.
  void check(std::size_t i) const {
    const Bytes read = ask(tenant, read_public(handles[i]));
    REQUIRE(code_of(read) == 0);
    const auto size = get_be<u16>(read, 10);
    CHECK(Bytes(read.begin() + 12, read.begin() + 12 + size) == publics[i]);
  }
};

}  // namespace

TEST_CASE("supervisor: with all three slots taken, a command on a persistent key succeeds") {
  REQUIRE_FUSE();
  FullTpm tpm;
  CHECK(code_of(run(tpm.link(), read_public(kPersistent), tpm::Locality::supervisor())) == 0);
  for (std::size_t i = 0; i < 3; ++i)
    tpm.check(i);
}

TEST_CASE("supervisor: a tenant's object never returns at another handle") {
  REQUIRE_FUSE();
  FullTpm tpm;
  const Bytes made = run(tpm.link(), create_primary(kOwner), tpm::Locality::supervisor());
  REQUIRE(code_of(made) == 0);
  // Another slot is free before the one that the object had.
  REQUIRE(code_of(ask(tpm.tenant, flush(tpm.handles[0]))) == 0);
  CHECK(code_of(ask(tpm.tenant, read_public(tpm.handles[0]))) != 0);
  tpm.check(1);
  tpm.check(2);
  REQUIRE(code_of(run(tpm.link(), flush(handle_in(made)), tpm::Locality::supervisor())) == 0);
  tpm.check(1);
  tpm.check(2);
}

TEST_CASE("supervisor: its objects take no room from the tenant") {
  REQUIRE_FUSE();
  FullTpm tpm;
  std::vector<u32> made;
  for (int i = 0; i < 4; ++i) {
    const Bytes response = run(tpm.link(), create_primary(kOwner), tpm::Locality::supervisor());
    REQUIRE(code_of(response) == 0);
    made.push_back(handle_in(response));
  }
  for (std::size_t i = 0; i < 3; ++i)
    tpm.check(i);
  for (const auto handle : made)
    CHECK(code_of(run(tpm.link(), flush(handle), tpm::Locality::supervisor())) == 0);
}
