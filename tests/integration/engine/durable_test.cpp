// SPDX-License-Identifier: Apache-2.0
// A durable TPM in a real engine on real slot files: it continues, refuses what was damaged or put back, and
// answers a full disk with a response code.
#include "tests/support/durable.h"

#include "tests/support/catch_result.h"

#include <algorithm>
#include <functional>

using namespace vtpm;
using namespace vtpm::test;

namespace {

constexpr u32 kNvUnavailable = 0x923;

struct Fixture {
  std::unique_ptr<ipc::Zygote> zygote = start_zygote();
  DurableTpm tpm{*zygote};

  // A started TPM with 8 bytes in kIndex, in which each write is one commit.
  void make() {
    REQUIRE(tpm.start());
    REQUIRE(code_of(tpm.command(nv_define(kIndex, 8))) == 0);
    write(1);
  }
  void write(u8 value) { REQUIRE(code_of(tpm.command(nv_write(kIndex, Bytes(8, value)))) == 0); }
  Bytes read() { return nv_content(tpm.command(nv_read(kIndex, 8))); }
  std::uint64_t sequence() { return tpm.link().status().value().sequence; }

  // The text of a refused power-on, with the files as they were.
  std::string refusal(std::uint64_t least = 0) {
    const Bytes a = read_file(tpm.slot('a'), 1 << 21).value();
    const Bytes b = read_file(tpm.slot('b'), 1 << 21).value();
    const auto result = tpm.power_on(least);
    REQUIRE_FALSE(result);
    CHECK(result.error().kind() == ErrorCode::Corrupt);
    tpm.kill();
    CHECK(read_file(tpm.slot('a'), 1 << 21).value() == a);
    CHECK(read_file(tpm.slot('b'), 1 << 21).value() == b);
    return result.error().context;
  }
  void edit(char slot, const std::function<void(Bytes&)>& change) {
    Bytes bytes = read_file(tpm.slot(slot), 1 << 21).value();
    change(bytes);
    REQUIRE(replace_file(tpm.slot(slot), bytes, 0600));
  }
  // The slot that was written last.
  char newest() {
    const auto at = [&](char slot) {
      return get_be<std::uint64_t>(read_file(tpm.slot(slot), 1 << 21).value(), 16);
    };
    return at('a') > at('b') ? 'a' : 'b';
  }
};

bool says(const std::string& text, std::string_view part) {
  INFO(text);
  CHECK(text.find(part) != std::string::npos);
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE_METHOD(Fixture,
                 "durable TPM: what was acknowledged is there after a kill, and the EK is the same") {
  make();
  const Bytes ek = public_in(tpm.command(create_primary(kEndorsement)));
  write(7);
  const auto last = sequence();
  tpm.kill();
  const auto continued = tpm.power_on(last);
  REQUIRE(continued);
  CHECK(*continued == last);
  REQUIRE(code_of(tpm.command(startup_clear())) == 0);
  CHECK(read() == Bytes(8, 7));
  CHECK(public_in(tpm.command(create_primary(kEndorsement))) == ek);
}

TEST_CASE_METHOD(Fixture, "durable TPM: a commit is one step of the sequence, and a mere question is none") {
  make();
  const auto before = sequence();
  write(2);
  CHECK(sequence() == before + 1);
  CHECK(code_of(tpm.command(get_random(16))) == 0);
  CHECK(code_of(tpm.command(pcr_extend(10, {}))) == 0);
  CHECK(read() == Bytes(8, 2));
  CHECK(sequence() == before + 1);
}

TEST_CASE_METHOD(Fixture, "durable TPM: an ordered end and a power cycle keep its state") {
  make();
  REQUIRE(tpm.link().shutdown());
  REQUIRE(tpm.link().power_on());
  REQUIRE(code_of(tpm.command(startup_clear())) == 0);
  write(3);
  tpm.end();
  REQUIRE(tpm.start());
  CHECK(read() == Bytes(8, 3));
}

TEST_CASE_METHOD(Fixture, "durable TPM: its state cannot be replaced through the link") {
  make();
  const Bytes other = tpm.link().permanent_state().value();
  REQUIRE(tpm.link().shutdown());
  const auto result = tpm.link().power_on(other);
  REQUIRE_FALSE(result);
  CHECK(result.error().kind() == ErrorCode::Conflict);
}

TEST_CASE_METHOD(Fixture, "durable TPM: nothing in the files can be read") {
  make();
  const std::string secret = "a text that is nowhere else";
  REQUIRE(code_of(tpm.command(nv_define(kIndex + 1, static_cast<u16>(secret.size())))) == 0);
  REQUIRE(code_of(tpm.command(nv_write(kIndex + 1, as_bytes(secret)))) == 0);
  write(2);
  for (const char slot : {'a', 'b'})
    CHECK(as_text(read_file(tpm.slot(slot), 1 << 21).value()).find(secret) == std::string_view::npos);
}

TEST_CASE_METHOD(Fixture, "durable TPM: a torn newest slot leaves the commit before it") {
  make();
  write(2);
  write(3);
  tpm.kill();
  edit(newest(), [](Bytes& bytes) { std::fill(bytes.begin() + 600, bytes.begin() + 1200, u8{0}); });
  REQUIRE(tpm.start());
  CHECK(read() == Bytes(8, 2));
}

TEST_CASE_METHOD(Fixture, "durable TPM: damage of both slots is refused, and the files are kept") {
  make();
  tpm.kill();
  edit('a', [](Bytes& bytes) { bytes[100] ^= 1; });
  edit('b', [](Bytes& bytes) { bytes.resize(500); });
  const std::string text = refusal();
  says(text, "slot a: torn or damaged");
  says(text, "slot b: truncated");
}

TEST_CASE_METHOD(Fixture, "durable TPM: state that was put back is refused") {
  make();
  const auto last = sequence();
  const Bytes a = read_file(tpm.slot('a'), 1 << 21).value();
  const Bytes b = read_file(tpm.slot('b'), 1 << 21).value();
  write(2);
  write(3);
  const auto newer = sequence();
  tpm.kill();
  REQUIRE(replace_file(tpm.slot('a'), a, 0600));
  REQUIRE(replace_file(tpm.slot('b'), b, 0600));
  says(refusal(newer), "rolled back");
  CHECK(tpm.power_on(last));
}

TEST_CASE_METHOD(Fixture, "durable TPM: deleted state is refused, not manufactured anew") {
  make();
  const auto last = sequence();
  tpm.kill();
  edit('a', [](Bytes& bytes) { bytes.clear(); });
  edit('b', [](Bytes& bytes) { bytes.clear(); });
  says(refusal(last), "both slots: empty");
}

TEST_CASE_METHOD(Fixture, "durable TPM: another instance's slots, or another key, are refused") {
  make();
  tpm.kill();
  SECTION("another instance") {
    tpm.id[7] ^= 1;
    says(refusal(), "slot a: belongs to another instance");
  }
  SECTION("another key") {
    tpm.key = Secret(Bytes(32, 0x77));
    says(refusal(), "slot b: torn or damaged, or of another state key");
  }
}

TEST_CASE_METHOD(Fixture, "durable TPM: slots that changed places do no harm") {
  make();
  write(5);
  tpm.kill();
  REQUIRE(tpm.power_on_with(tpm.open_slot('b'), tpm.open_slot('a')));
  REQUIRE(code_of(tpm.command(startup_clear())) == 0);
  CHECK(read() == Bytes(8, 5));
}

TEST_CASE_METHOD(Fixture, "durable TPM: a full disk is answered NV_UNAVAILABLE and nothing is half there") {
  make();
  tpm.end();  // both slots are written; the newest goes to be the only one
  const std::string kept = tpm.slot(newest());
  // /dev/full reads as zeros and refuses each write with ENOSPC.
  REQUIRE(tpm.power_on_with(DurableTpm::open_file(kept), UniqueFd(::open("/dev/full", O_RDWR | O_CLOEXEC))));
  const auto last = sequence();
  CHECK(code_of(tpm.command(startup_clear())) == kNvUnavailable);
  CHECK(code_of(tpm.command(get_random(8))) == 0x100);  // TPM_RC_INITIALIZE: not started
  CHECK(code_of(tpm.command(startup_clear())) == kNvUnavailable);
  CHECK(sequence() == last);
  REQUIRE(tpm.start(last));
  CHECK(read() == Bytes(8, 1));
}

TEST_CASE_METHOD(Fixture, "durable TPM: without room for the first commit there is no TPM") {
  const auto result = tpm.power_on_with(UniqueFd(::open("/dev/null", O_RDONLY | O_CLOEXEC)),
                                        UniqueFd(::open("/dev/null", O_RDONLY | O_CLOEXEC)));
  REQUIRE_FALSE(result);
  CHECK(result.error().context.find("slot a") != std::string::npos);
  // The same engine can be powered on with better files.
  CHECK(tpm.link().power_on_durable(tpm.id, tpm.key, 0, tpm.open_slot('a'), tpm.open_slot('b')));
}

TEST_CASE_METHOD(Fixture,
                 "durable TPM: kills between uses of a protected object do not lock the tenant out") {
  REQUIRE(tpm.start());
  // An index with the password "pw", under dictionary-attack protection (without NO_DA).
  const Bytes password = {'p', 'w'};
  Writer area;
  area.add(kIndex).add(u16{0x000b}).add(u32{0x00040004}).add(u16{0}).add(u16{8});  // AUTHWRITE, AUTHREAD
  REQUIRE(code_of(tpm.command(authorized(
              0x12a, kOwner,
              Writer().add(u16{2}).add(password).add(static_cast<u16>(area.size())).add(area)))) == 0);
  const auto use = [&](BytesView with) {
    const auto parameters = Writer().add(u16{8}).add(Bytes(8, 1)).add(u16{0});
    u32 code = 0x922;
    while (code == 0x922)  // TPM_RC_RETRY: the first use is noted
      code = code_of(tpm.command(authorized_two(0x137, kIndex, kIndex, parameters, with)));
    return code;
  };
  constexpr int kRounds = 50;
  SECTION("without failed tries") {
    for (int round = 0; round < kRounds; ++round) {
      INFO("round " << round);
      REQUIRE(use(password) == 0);
      tpm.kill();
      REQUIRE(tpm.start());
      REQUIRE(tpm_property(tpm.link(), kLockoutCounter) == 0);
    }
  }
  SECTION("with failed tries, which are not forgiven") {
    const Bytes wrong = {'n', 'o'};
    for (int round = 0; round < kRounds; ++round) {
      INFO("round " << round);
      if (round < 2) REQUIRE(use(wrong) == 0x98e);  // TPM_RC_AUTH_FAIL; the third would lock
      const u32 tries = round < 2 ? static_cast<u32>(round) + 1 : 2;
      REQUIRE(tpm_property(tpm.link(), kLockoutCounter) == tries);
      tpm.kill();
      REQUIRE(tpm.start());
      REQUIRE(tpm_property(tpm.link(), kLockoutCounter) == tries);
      REQUIRE(use(password) == 0);
    }
    CHECK(use(wrong) == 0x98e);
    CHECK(use(password) == 0x921);  // TPM_RC_LOCKOUT: as it should be
  }
}
