// SPDX-License-Identifier: Apache-2.0
#include "tests/support/catch_result.h"

#include <vtpm/os/encoding.h>
#include <vtpm/tpm/digest.h>

using namespace vtpm;
using namespace vtpm::tpm;

TEST_CASE("sha256: known answers of FIPS 180-2") {
  CHECK(to_hex(sha256(as_bytes(""))) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK(to_hex(sha256(as_bytes("abc"))) ==
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK(to_hex(sha256(as_bytes("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"))) ==
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
}

TEST_CASE("sha256: parts are hashed as their concatenation") {
  CHECK(sha256({as_bytes("a"), as_bytes(""), as_bytes("bc")}) == sha256(as_bytes("abc")));
}

TEST_CASE("sha256: digests are read from 64 lower-case digits or 32 bytes only") {
  const std::string text(64, 'f');
  CHECK(to_hex(*sha256_from_hex(text)) == text);
  CHECK_FALSE(sha256_from_hex(std::string(64, 'F')));
  CHECK_FALSE(sha256_from_hex(text.substr(2)));
  CHECK_FALSE(sha256_from_hex(text + "ff"));
  CHECK_FALSE(sha256_from_hex(""));
  CHECK(sha256_from_bytes(Bytes(32, 1)));
  CHECK_FALSE(sha256_from_bytes(Bytes(31, 1)));
  CHECK_FALSE(sha256_from_bytes(Bytes(33, 1)));
}

TEST_CASE("extend: it hashes the old value and the digest") {
  // The value of a PCR of zeros after extending zeros, as any TPM gives it.
  CHECK(to_hex(extend({}, {})) == "f5a5fd42d16a20302798ef6ed309979b43003d2320d9f0e8ea9831a92759fb4b");
}
