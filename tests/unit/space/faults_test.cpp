// SPDX-License-Identifier: Apache-2.0
// A TPM that refuses the resource manager's own commands: clients get answers that a TPM could give, nothing
// is lost that need not be, and nothing goes on for ever.
#include "tests/unit/space/fixture.h"

#include <functional>

using namespace vtpm;
using namespace vtpm::test;
using wire::kOwner;
using wire::SessionType;

namespace {

constexpr std::uint32_t kContextSave = 0x162, kContextLoad = 0x161, kFlush = 0x165;

// libtpms, but for the commands that `fault` answers.
class FaultyTpm final : public space::Transmit {
 public:
  Result<BytesView> transmit(tpm::Locality locality, BytesView command) override {
    ++commands;
    const auto code = fault(get_be<std::uint32_t>(command, 6));
    if (!code) return LocalTpm::get().transmit(locality, command);
    if (*code == kBroken) return Error(ErrorCode::Internal, "broken");
    answer_ = tpm::error_response(tpm::ResponseCode{*code});
    if (*code == kShort) answer_.resize(4);
    return BytesView(answer_);
  }
  void refuse(std::uint32_t command, std::uint32_t with) {
    fault = [=](std::uint32_t code) { return code == command ? std::optional(with) : std::nullopt; };
  }
  void heal() {
    fault = [](std::uint32_t) { return std::nullopt; };
  }

  static constexpr std::uint32_t kBroken = 0xffffffff, kShort = 0xfffffffe;
  std::function<std::optional<std::uint32_t>(std::uint32_t)> fault = [](std::uint32_t) {
    return std::nullopt;
  };
  std::size_t commands = 0;

 private:
  Bytes answer_;
};

// Two clients, the first of which has an object and a session that are out.
struct Swapped {
  FaultyTpm tpm;
  Fixture fixture{tpm};
  Client one{fixture}, two{fixture};
  std::uint32_t key = one.handle(wire::create_primary(kOwner, "key"));
  std::uint32_t session = one.handle(wire::start_session(SessionType::Policy));
  Bytes area = one.public_of(key);

  Swapped() {
    for (int i = 0; i < 3; ++i) {
      (void)two.handle(wire::create_primary(kOwner, std::to_string(i)));
      (void)two.handle(wire::start_session(SessionType::Policy));
    }
  }
};

}  // namespace

TEST_CASE("faults: a context that the TPM refuses is a missing object, and only that") {
  Swapped s;
  s.tpm.refuse(kContextLoad, 0x1df);  // INTEGRITY
  CHECK(s.one.code(wire::read_public(s.key)) == 0x910);
  CHECK(s.one.code(wire::policy_get_digest(s.session)) == 0x910);
  s.tpm.heal();
  CHECK(s.one.handles(0x80000000).empty());
  CHECK(s.one.handles(0x02000000).empty());
  CHECK(s.two.code(wire::read_public(0x80000002)) == 0);
}

TEST_CASE("faults: a TPM that has no time now loses nothing") {
  Swapped s;
  const std::uint32_t command = GENERATE(kContextLoad, kContextSave);
  const std::uint32_t code = GENERATE(0x922U, 0x920U, 0x101U);  // RETRY, NV_RATE, FAILURE
  s.tpm.refuse(command, code);
  CHECK(s.one.code(wire::read_public(s.key)) == code);
  CHECK(s.one.code(wire::policy_get_digest(s.session)) == code);
  s.tpm.heal();
  CHECK(s.one.public_of(s.key) == s.area);
  CHECK(s.one.code(wire::policy_get_digest(s.session)) == 0);
}

TEST_CASE("faults: an object that the TPM flushed by itself is missed when it should leave") {
  Swapped s;
  for (const std::uint32_t real : {0x80000000U, 0x80000001U, 0x80000002U})
    (void)s.fixture.tpm.transmit(tpm::Locality::tenant(), wire::flush(real)).value();
  CHECK(s.one.public_of(s.key) == s.area);
  for (std::uint32_t i = 0; i < 3; ++i)
    CHECK(s.two.code(wire::read_public(0x80000000 + i)) == 0x910);
}

TEST_CASE("faults: who lost an object does not reach the one that took its place") {
  Fixture fixture;
  Client one(fixture), two(fixture);
  const std::uint32_t key = one.handle(wire::create_primary(kOwner, "key"));
  (void)fixture.tpm.transmit(tpm::Locality::tenant(), wire::flush(0x80000000)).value();
  (void)two.handle(wire::create_primary(kOwner, "secret"));
  CHECK(one.code(wire::read_public(key)) == 0x910);
  CHECK(two.code(wire::read_public(0x80000000)) == 0);
}

TEST_CASE("faults: a TPM that never has room is not asked for ever") {
  Swapped s;
  const std::size_t before = s.tpm.commands;
  s.tpm.refuse(0x131, 0x902);
  CHECK(s.one.code(wire::create_primary(kOwner, "x")) == 0x902);
  s.tpm.refuse(0x176, 0x903);
  CHECK(s.one.code(wire::start_session(SessionType::Hmac)) == 0x903);
  s.tpm.refuse(0x176, 0x905);
  CHECK(s.one.code(wire::start_session(SessionType::Hmac)) == 0x905);
  CHECK(s.tpm.commands - before < 40);
  s.tpm.refuse(0x176, 0x901);
  CHECK(s.one.code(wire::start_session(SessionType::Hmac)) == 0x901);
  s.tpm.refuse(kContextLoad, 0x902);
  CHECK(s.one.code(wire::read_public(s.key)) == 0x902);
  s.tpm.heal();
  CHECK(s.one.public_of(s.key) == s.area);
}

TEST_CASE("faults: a TPM that is of no more use is an error, not an answer") {
  Swapped s;
  const std::uint32_t how = GENERATE(FaultyTpm::kBroken, FaultyTpm::kShort);
  const std::uint32_t command = GENERATE(0x173U, kContextLoad, kContextSave, kFlush);
  s.tpm.refuse(command, how);
  CHECK(s.fixture.manager.execute(s.one.id, tpm::Locality::tenant(), wire::read_public(s.key), s.fixture.now)
            .has_error());
  s.one.close();  // does not fail, and does not hang
  CHECK(s.fixture.manager.counters().spaces == 1);
}

TEST_CASE("faults: without the attributes of its commands nothing is executed") {
  FaultyTpm tpm;
  tpm.refuse(0x17a, 0x1c4);
  Fixture fixture(tpm);
  const Client client(fixture);
  const auto outcome =
      fixture.manager.execute(client.id, tpm::Locality::tenant(), wire::get_random(), fixture.now);
  REQUIRE(outcome.has_error());
  CHECK(outcome.error().kind() == ErrorCode::TpmFailure);
}
