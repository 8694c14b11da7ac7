// SPDX-License-Identifier: Apache-2.0
// Ownership of OpenSSL's objects.
#pragma once

#include <openssl/evp.h>

#include <memory>

namespace vtpm::tpm {

template <auto Free>
struct Freed {
  template <class T>
  void operator()(T* object) const noexcept {
    Free(object);
  }
};

// unique_ptr for a C library's objects.
template <class T, auto Free>
using Owned = std::unique_ptr<T, Freed<Free>>;

using Key = Owned<EVP_PKEY, EVP_PKEY_free>;

}  // namespace vtpm::tpm
