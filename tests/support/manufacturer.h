// SPDX-License-Identifier: Apache-2.0
// A TPM manufacturer's CA and an enrolment authority, in memory.
#pragma once

#include <vtpm/evidence/enrolment.h>
#include <vtpm/os/bytes.h>

#include <memory>
#include <string>

namespace vtpm::test {

// A P-256 key pair.
class KeyPair {
 public:
  KeyPair();
  std::string private_pem() const;
  std::string public_pem() const;
  struct State;
  State& state() const noexcept { return *state_; }

 private:
  std::shared_ptr<State> state_;
};

struct TestEk {
  Bytes public_area;  // TPMT_PUBLIC of an endorsement key
  Bytes certificate;  // X.509 DER
};

// A self-signed CA that vouches for what it makes.
class TestManufacturer {
 public:
  TestManufacturer();
  const std::string& pem() const noexcept { return pem_; }
  TestEk make_ek() const;

 private:
  KeyPair key_;
  std::string pem_;
};

// An enrolment of the AK (a TPMT_PUBLIC), as after an honest ceremony.
evidence::SignedEnrolment enrol(const TestEk& ek, const Bytes& ak_public, const KeyPair& authority,
                                std::uint64_t time);

}  // namespace vtpm::test
