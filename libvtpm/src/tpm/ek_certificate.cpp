// SPDX-License-Identifier: Apache-2.0
#include "tpm/openssl.h"
#include "tpm/public_key.h"
#include "tpm/structure.h"

#include <vtpm/tpm/ek_certificate.h>

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/pemerr.h>
#include <openssl/x509.h>
#include <openssl/x509_vfy.h>
#include <openssl/x509v3.h>

namespace vtpm::tpm {
namespace {

constexpr std::size_t kMaxCertificate = 16 * 1024;
constexpr std::size_t kMaxPem = 1024 * 1024;
constexpr std::string_view kType = "certificate";

using Certificate = Owned<X509, X509_free>;
using Memory = Owned<BIO, BIO_free_all>;

void free_stack(STACK_OF(X509) * stack) noexcept {
  sk_X509_pop_free(stack, X509_free);
}
using Stack = Owned<STACK_OF(X509), free_stack>;

Result<Certificate> parse(BytesView der) {
  if (der.empty() || der.size() > kMaxCertificate) return malformed(kType, "none of a usual size");
  const unsigned char* next = der.data();
  Certificate parsed(d2i_X509(nullptr, &next, static_cast<long>(der.size())));
  if (!parsed) return malformed(kType, "not X.509 in DER");
  if (next != der.data() + der.size()) return malformed(kType, "trailing bytes");
  return parsed;
}

Result<> push(const Stack& stack, Certificate certificate) {
  if (!stack || sk_X509_push(stack.get(), certificate.get()) == 0)
    return Error(ErrorCode::Internal, "OpenSSL cannot keep a certificate");
  static_cast<void>(certificate.release());  // the stack's
  return {};
}

// Whether reading ended because there is no more PEM. The queue of OpenSSL's errors is left empty.
bool is_end_of_pem() noexcept {
  const unsigned long error = ERR_peek_last_error();
  ERR_clear_error();
  return ERR_GET_LIB(error) == ERR_LIB_PEM && ERR_GET_REASON(error) == PEM_R_NO_START_LINE;
}

Result<Stack> parse_pem(std::string_view pem) {
  if (pem.size() > kMaxPem) return malformed(kType, "more than 1 MiB of PEM");
  const Memory memory(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
  Stack stack(sk_X509_new_null());
  ERR_clear_error();
  while (memory && stack) {
    Certificate next(PEM_read_bio_X509(memory.get(), nullptr, nullptr, nullptr));
    if (!next && is_end_of_pem()) return stack;
    if (!next) return malformed(kType, "PEM with a certificate that does not parse");
    VTPM_TRY_VOID(push(stack, std::move(next)));
  }
  return Error(ErrorCode::Internal, "OpenSSL cannot read PEM");
}

Result<Bytes> der_of(const X509* certificate) {
  const int size = i2d_X509(certificate, nullptr);
  if (size <= 0) return malformed(kType, "it has no DER");
  Bytes der(static_cast<std::size_t>(size));
  unsigned char* out = der.data();
  i2d_X509(certificate, &out);
  return der;
}

Result<Stack> parse_all(const std::vector<Bytes>& certificates) {
  Stack stack(sk_X509_new_null());
  for (const Bytes& der : certificates) {
    VTPM_TRY(Certificate parsed, parse(der));
    VTPM_TRY_VOID(push(stack, std::move(parsed)));
  }
  return stack;
}

std::string text_of(const Memory& memory) {
  char* text = nullptr;
  const long size = BIO_get_mem_data(memory.get(), &text);
  std::string out(text, static_cast<std::size_t>(size));
  for (char& c : out)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = ' ';
  return out;
}

std::string name_text(const X509_NAME* name) {
  const Memory memory(BIO_new(BIO_s_mem()));
  if (!memory || X509_NAME_print_ex(memory.get(), name, 0, XN_FLAG_RFC2253) < 0) return "?";
  return text_of(memory);
}

Error broken_chain(X509_STORE_CTX* context) {
  const int code = X509_STORE_CTX_get_error(context);
  const X509* about = X509_STORE_CTX_get_current_cert(context);
  const std::string subject = about ? name_text(X509_get_subject_name(about)) : std::string();
  return {ErrorCode::NotVerified, std::string(X509_verify_cert_error_string(code)) +
                                      ", at the certificate of \"" + subject + "\" issued by \"" +
                                      (about ? name_text(X509_get_issuer_name(about)) : std::string()) + '"'};
}

Result<> leads_to(const Certificate& leaf, const Stack& between, const Stack& trusted, std::uint64_t time) {
  const Owned<X509_STORE, X509_STORE_free> store(X509_STORE_new());
  const Owned<X509_STORE_CTX, X509_STORE_CTX_free> context(X509_STORE_CTX_new());
  if (!store || !context || X509_STORE_CTX_init(context.get(), store.get(), leaf.get(), between.get()) != 1)
    return Error(ErrorCode::Internal, "OpenSSL cannot check a chain");
  X509_STORE_CTX_set0_trusted_stack(context.get(), trusted.get());
  // Any certificate that was named as trusted ends the chain, be it self-signed or an intermediate CA.
  X509_STORE_CTX_set_flags(context.get(), X509_V_FLAG_PARTIAL_CHAIN);
  X509_STORE_CTX_set_time(context.get(), 0, static_cast<time_t>(time / 1000));
  if (X509_verify_cert(context.get()) != 1) return broken_chain(context.get());
  return {};
}

Result<Stack> only(X509* certificate) {
  Stack stack(sk_X509_new_null());
  X509_up_ref(certificate);
  VTPM_TRY_VOID(push(stack, Certificate(certificate)));
  return stack;
}

}  // namespace

Result<> check_certified_key(BytesView certificate, BytesView tpmt_public) {
  VTPM_TRY(const Certificate parsed, parse(certificate));
  VTPM_TRY(const TPMT_PUBLIC area, parse_public(tpmt_public));
  VTPM_TRY(const Key key, make_key(area));
  const EVP_PKEY* certified = X509_get0_pubkey(parsed.get());
  if (certified == nullptr) return malformed(kType, "its key is of no kind that OpenSSL knows");
  if (EVP_PKEY_eq(certified, key.get()) != 1)
    return Error(ErrorCode::NotVerified, "the certificate is for another key");
  return {};
}

Result<> check_certificate_chain(BytesView certificate, const std::vector<Bytes>& intermediates,
                                 std::string_view roots, std::uint64_t time) {
  VTPM_TRY(const Certificate leaf, parse(certificate));
  VTPM_TRY(const Stack between, parse_all(intermediates));
  VTPM_TRY(const Stack trusted, parse_pem(roots));
  if (sk_X509_num(trusted.get()) == 0) return malformed(kType, "no CA certificate in PEM");
  Result<> by_all = leads_to(leaf, between, trusted, time);
  // OpenSSL takes the first root that has the issuer's name; another of that name may have the key.
  for (int i = 0; !by_all && i < sk_X509_num(trusted.get()); ++i) {
    VTPM_TRY(const Stack one, only(sk_X509_value(trusted.get(), i)));
    if (leads_to(leaf, between, one, time)) return {};
  }
  return by_all;
}

Result<std::vector<Bytes>> certificates_of_pem(std::string_view pem) {
  VTPM_TRY(const Stack stack, parse_pem(pem));
  std::vector<Bytes> certificates;
  for (int i = 0; i < sk_X509_num(stack.get()); ++i) {
    VTPM_TRY(Bytes der, der_of(sk_X509_value(stack.get(), i)));
    certificates.push_back(std::move(der));
  }
  return certificates;
}

Result<std::string> describe_certificate(BytesView certificate) {
  VTPM_TRY(const Certificate parsed, parse(certificate));
  std::string text = name_text(X509_get_subject_name(parsed.get()));
  const int place = X509_get_ext_by_NID(parsed.get(), NID_subject_alt_name, -1);
  if (place < 0) return text;
  const Memory memory(BIO_new(BIO_s_mem()));
  if (!memory || X509V3_EXT_print(memory.get(), X509_get_ext(parsed.get(), place), 0, 0) != 1) return text;
  return text + (text.empty() ? "" : " ") + text_of(memory);
}

}  // namespace vtpm::tpm
