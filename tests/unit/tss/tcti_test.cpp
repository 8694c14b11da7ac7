// SPDX-License-Identifier: Apache-2.0
#include "daemon/tss/esys.h"

#include <catch2/catch.hpp>

using namespace vtpm;
using namespace vtpm::tss;

namespace {

Bytes header_only(TPM2_RC code) {
  Bytes bytes;
  put_be<std::uint16_t>(bytes, TPM2_ST_NO_SESSIONS);
  put_be<std::uint32_t>(bytes, 10);
  put_be<std::uint32_t>(bytes, code);
  return bytes;
}

TSS2_RC shutdown(ESYS_CONTEXT* context) {
  return Esys_Shutdown(context, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, TPM2_SU_CLEAR);
}

std::unique_ptr<Esys> esys_over(Transmit transmit, Esys::Patience patience) {
  auto esys = Esys::make(make_tcti(std::move(transmit)), patience);
  REQUIRE(esys.has_value());
  return std::move(*esys);
}

constexpr Esys::Patience kLong{60'000};

}  // namespace

TEST_CASE("ESYS over a function: the command goes out and its response comes back") {
  Bytes seen;
  auto esys = esys_over(
      [&seen](BytesView command) -> Result<Bytes> {
        seen.assign(command.begin(), command.end());
        return header_only(TPM2_RC_SUCCESS);
      },
      kLong);
  CHECK(esys->call("TPM2_Shutdown", shutdown).has_value());
  CHECK(seen == Bytes{0x80, 0x01, 0, 0, 0, 12, 0, 0, 0x01, 0x45, 0, 0});
}

TEST_CASE("ESYS over a function: the error of the transport arrives as it was") {
  auto esys = esys_over(
      [](BytesView) -> Result<Bytes> { return Error(ErrorCode::Timeout, "the engine is silent"); }, kLong);
  const auto result = esys->call("TPM2_Shutdown", shutdown);
  REQUIRE(result.has_error());
  CHECK(result.error().kind() == ErrorCode::Timeout);
  CHECK(result.error().context == "TPM2_Shutdown: the engine is silent");
}

TEST_CASE("ESYS: a busy TPM is asked again until it answers") {
  const auto code = GENERATE(TPM2_RC_RETRY, TPM2_RC_OBJECT_MEMORY, TPM2_RC_SESSION_HANDLES, TPM2_RC_NV_RATE);
  int commands = 0;
  auto esys = esys_over(
      [&commands, code](BytesView) -> Result<Bytes> {
        return header_only(++commands < 3 ? code : TPM2_RC_SUCCESS);
      },
      kLong);
  CHECK(esys->call("TPM2_Shutdown", shutdown).has_value());
  CHECK(commands == 3);
}

TEST_CASE("ESYS: a TPM that stays busy is reported as Busy") {
  auto esys = esys_over([](BytesView) -> Result<Bytes> { return header_only(TPM2_RC_OBJECT_MEMORY); },
                        Esys::Patience{5});
  const auto result = esys->call("TPM2_Shutdown", shutdown);
  REQUIRE(result.has_error());
  CHECK(result.error().kind() == ErrorCode::Busy);
}

TEST_CASE("ESYS: another response code is asked for once only") {
  int commands = 0;
  auto esys = esys_over(
      [&commands](BytesView) -> Result<Bytes> {
        ++commands;
        return header_only(TPM2_RC_FAILURE);
      },
      kLong);
  const auto result = esys->call("TPM2_Shutdown", shutdown);
  REQUIRE(result.has_error());
  CHECK(result.error().kind() == ErrorCode::TpmFailure);
  CHECK(commands == 1);
}

TEST_CASE("ESYS: responses that are no responses are errors") {
  const auto response = GENERATE(Bytes{}, Bytes{0x80}, Bytes(10, 0xff), Bytes(5000, 0x80),
                                 Bytes{0x80, 0x01, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0});
  auto esys = esys_over([&response](BytesView) -> Result<Bytes> { return response; }, kLong);
  TPM2B_DIGEST* random = nullptr;
  CHECK(esys->call("TPM2_GetRandom",
                   [&random](ESYS_CONTEXT* context) {
                     return Esys_GetRandom(context, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, 8, &random);
                   })
            .has_error());
  CHECK(random == nullptr);
}

TEST_CASE("TCTI by name: what cannot be opened says why") {
  struct Row {
    std::string configuration;
    ErrorCode kind;
  };
  const auto row = GENERATE(Row{"no-such-tcti:x=y", ErrorCode::Configuration},
                            Row{"device:/nonexistent/tpmrm0", ErrorCode::Unreachable},
                            Row{"swtpm:path=/nonexistent/swtpm.sock", ErrorCode::Unreachable});
  const auto tcti = open_tcti(row.configuration);
  REQUIRE(tcti.has_error());
  INFO(tcti.error().context);
  CHECK(tcti.error().kind() == row.kind);
}
