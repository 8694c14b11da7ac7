// SPDX-License-Identifier: Apache-2.0
// An anchor on a real swtpm, whose commands a test can watch and answer itself.
#pragma once

#include "daemon/anchor/connection.h"
#include "daemon/tss/object.h"
#include "tests/support/skip.h"
#include "tests/support/swtpm.h"

#include <catch2/catch.hpp>

#include <optional>
#include <vector>

#define REQUIRE_SWTPM() \
  if (!vtpm::test::has_program("swtpm")) VTPM_SKIP("swtpm is not installed")

namespace vtpm::test {

inline const tpm::Sha256 kData = tpm::sha256(as_bytes("qualifying data"));

// Looks at a command before the TPM does; a response in its place, or nothing.
using Interceptor = std::function<std::optional<Result<Bytes>>(TPM2_CC code, BytesView command)>;

// A started swtpm with one connection that the anchor and the test share (swtpm serves one client at a time).
class Machine {
 public:
  Machine();
  // An ESYS of the test's own.
  std::unique_ptr<tss::Esys> esys() const;
  anchor::AnchorConfig config() const;
  Result<std::unique_ptr<anchor::Anchor>> open(const anchor::AnchorConfig& config,
                                               tss::Esys::Patience patience = tss::Esys::kPatience);
  Result<std::unique_ptr<anchor::Anchor>> open() { return open(config()); }
  // A command straight to the TPM.
  Result<Bytes> transmit(BytesView command) const { return transmit_(command); }

  const std::string& state_dir() const noexcept { return state_.path(); }
  Interceptor intercept;

 private:
  TempDir tpm_dir_;
  TempDir state_;
  std::unique_ptr<Swtpm> swtpm_;
  std::function<Result<Bytes>(BytesView)> transmit_;
};

#define REQUIRE_MANUFACTURER()                                                              \
  if (!vtpm::test::has_program("swtpm_setup") || !vtpm::test::has_program("swtpm_localca")) \
  VTPM_SKIP("swtpm_setup and swtpm_localca are not installed")

// swtpm's local CA, of which nothing is shared with others'.
class Manufacturer {
 public:
  Manufacturer();
  // A started swtpm that was never used, with RSA-2048 and P-384 EKs and their certificates.
  std::unique_ptr<Swtpm> make_tpm() const;
  std::string root() const;          // its CA's certificate, PEM
  std::string intermediate() const;  // the certificate of what signs EK certificates, PEM

 private:
  TempDir ca_;
  TempDir tpm_;
};

// What is in the TPM: slots left, sessions, persistent handles.
struct Occupancy {
  std::uint32_t transient_available;
  std::uint32_t loaded_available;
  std::uint32_t active_available;
  std::vector<TPM2_HANDLE> transient;
  std::vector<TPM2_HANDLE> persistent;
  bool operator==(const Occupancy&) const = default;
};
Occupancy occupancy(tss::Esys& esys);

// A key that is not the anchor's.
tss::CreatedPrimary foreign_key(tss::Esys& esys, std::string_view domain);

// A response that is only a header.
Bytes answer(TPM2_RC code);

}  // namespace vtpm::test
