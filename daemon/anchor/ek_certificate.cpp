// SPDX-License-Identifier: Apache-2.0
#include "daemon/anchor/ek_certificate.h"

#include "daemon/tss/capability.h"
#include "daemon/tss/object.h"

#include <algorithm>

namespace vtpm::anchor {
namespace {

constexpr std::array kIndices = {kEccP256Index, kEccP384Index, kRsa2048Index};
constexpr std::uint32_t kLeastNvBuffer = 512;  // what the PC Client profile guarantees
constexpr std::uint8_t kSequence = 0x30;       // X.690: constructed SEQUENCE

// Who may read an index without an auth value: the index itself, or the owner. NONE: neither.
ESYS_TR reader_of(const tss::Object& index, TPMA_NV attributes) noexcept {
  if ((attributes & TPMA_NV_WRITTEN) == 0) return ESYS_TR_NONE;
  if ((attributes & TPMA_NV_AUTHREAD) != 0) return index.handle();
  return (attributes & TPMA_NV_OWNERREAD) != 0 ? ESYS_TR_RH_OWNER : ESYS_TR_NONE;
}

// The whole of an index; nullopt when the TPM refuses.
Result<std::optional<Bytes>> read_index(tss::Esys& esys, TPM2_HANDLE handle, std::uint32_t step) {
  VTPM_TRY(const auto index, tss::find(esys, handle));
  if (!index) return std::optional<Bytes>();
  TPM2B_NV_PUBLIC* area = nullptr;
  VTPM_TRY_VOID(esys.call("TPM2_NV_ReadPublic", [&](ESYS_CONTEXT* context) {
    return Esys_NV_ReadPublic(context, index->handle(), ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, &area,
                              nullptr);
  }));
  const tss::EsysPtr<TPM2B_NV_PUBLIC> owned(area);
  const ESYS_TR reader = reader_of(*index, area->nvPublic.attributes);
  if (reader == ESYS_TR_NONE) return std::optional<Bytes>();
  Bytes content;
  while (content.size() < area->nvPublic.dataSize) {
    const auto offset = static_cast<std::uint16_t>(content.size());
    const auto size =
        static_cast<std::uint16_t>(std::min<std::uint32_t>(step, area->nvPublic.dataSize - offset));
    TPM2B_MAX_NV_BUFFER* part = nullptr;
    VTPM_TRY(const TSS2_RC rc, esys.execute("TPM2_NV_Read", [&](ESYS_CONTEXT* context) {
      return Esys_NV_Read(context, reader, index->handle(), ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE,
                          size, offset, &part);
    }));
    if (rc != TSS2_RC_SUCCESS) return std::optional<Bytes>();
    const tss::EsysPtr<TPM2B_MAX_NV_BUFFER> part_owner(part);
    if (part->size != size) return Error(ErrorCode::Malformed, "TPM2_NV_Read: another size than asked for");
    put(content, BytesView(part->buffer, part->size));
  }
  return std::optional<Bytes>(std::move(content));
}

}  // namespace

std::optional<Bytes> leading_der(BytesView bytes) {
  if (bytes.size() < 2 || bytes[0] != kSequence) return std::nullopt;
  std::size_t header = 2;
  std::size_t length = bytes[1];
  if (length >= 0x80) {  // long form: the number of length bytes that follow
    const std::size_t count = length & 0x7f;
    if (count == 0 || count > 3 || bytes.size() < header + count) return std::nullopt;
    length = 0;
    for (std::uint8_t byte : bytes.subspan(header, count))
      length = length << 8 | byte;
    header += count;
  }
  if (length > bytes.size() - header) return std::nullopt;
  const BytesView certificate = bytes.first(header + length);
  return Bytes(certificate.begin(), certificate.end());
}

Result<std::optional<EkCertificate>> read_ek_certificate(tss::Esys& esys) {
  auto step = tss::property(esys, TPM2_PT_NV_BUFFER_MAX);
  if (!step && step.error().kind() != ErrorCode::NotFound) return std::move(step).error();
  const auto most = std::uint32_t{sizeof(TPM2B_MAX_NV_BUFFER::buffer)};
  const std::uint32_t usable = step && *step > 0 ? std::min(*step, most) : kLeastNvBuffer;
  for (TPM2_HANDLE handle : kIndices) {
    VTPM_TRY(const auto present, tss::handles(esys, handle, handle));
    if (present.empty()) continue;
    VTPM_TRY(const auto content, read_index(esys, handle, usable));
    auto certificate = content ? leading_der(*content) : std::nullopt;
    if (certificate) return std::optional(EkCertificate{handle, std::move(*certificate)});
  }
  return std::optional<EkCertificate>();
}

}  // namespace vtpm::anchor
