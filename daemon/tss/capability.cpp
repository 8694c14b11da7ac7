// SPDX-License-Identifier: Apache-2.0
#include "daemon/tss/capability.h"

#include <algorithm>

namespace vtpm::tss {
namespace {

struct Page {
  EsysPtr<TPMS_CAPABILITY_DATA> content;
  bool more;
};

Result<Page> capability(Esys& esys, TPM2_CAP kind, std::uint32_t first, std::uint32_t count) {
  TPMI_YES_NO more = TPM2_NO;
  TPMS_CAPABILITY_DATA* content = nullptr;
  VTPM_TRY_VOID(esys.call("TPM2_GetCapability", [&](ESYS_CONTEXT* context) {
    return Esys_GetCapability(context, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, kind, first, count, &more,
                              &content);
  }));
  Page page{EsysPtr<TPMS_CAPABILITY_DATA>(content), more == TPM2_YES};
  if (page.content->capability != kind)
    return Error(ErrorCode::Malformed, "TPM2_GetCapability: an answer about another capability");
  return page;
}

void append_text(std::string& text, std::uint32_t word) {
  for (int shift = 24; shift >= 0; shift -= 8) {
    const auto letter = static_cast<char>((word >> shift) & 0xff);
    const bool printable = letter > ' ' && letter <= '~';
    if (printable)
      text += letter;
    else if (!text.empty() && text.back() != ' ')
      text += ' ';
  }
}

}  // namespace

Result<> startup(Esys& esys, bool if_needed) {
  VTPM_TRY(const TSS2_RC rc, esys.execute("TPM2_Startup", [](ESYS_CONTEXT* context) {
    return Esys_Startup(context, TPM2_SU_CLEAR);
  }));
  const bool already = if_needed && plain_code(rc) == TPM2_RC_INITIALIZE;
  if (rc != TSS2_RC_SUCCESS && !already) return to_error("TPM2_Startup", rc);
  return {};
}

Result<std::vector<TPM2_HANDLE>> handles(Esys& esys, TPM2_HANDLE first, TPM2_HANDLE last) {
  std::vector<TPM2_HANDLE> found;
  for (TPM2_HANDLE next = first;;) {
    VTPM_TRY(const Page page, capability(esys, TPM2_CAP_HANDLES, next, TPM2_MAX_CAP_HANDLES));
    const auto& list = page.content->data.handles;
    for (TPM2_HANDLE handle :
         std::span(list.handle, std::min<std::size_t>(list.count, TPM2_MAX_CAP_HANDLES))) {
      if (handle < next) return Error(ErrorCode::Malformed, "TPM2_GetCapability: handles out of order");
      if (handle > last) return found;
      found.push_back(handle);
      next = handle + 1;
    }
    if (!page.more || list.count == 0 || next > last) return found;
  }
}

Result<std::vector<TPM2_HANDLE>> transient_objects(Esys& esys) {
  return handles(esys, TPM2_TRANSIENT_FIRST, TPM2_TRANSIENT_LAST);
}

Result<std::uint32_t> property(Esys& esys, TPM2_PT property) {
  VTPM_TRY(const Page page, capability(esys, TPM2_CAP_TPM_PROPERTIES, property, 1));
  const auto& list = page.content->data.tpmProperties;
  if (list.count < 1 || list.tpmProperty[0].property != property)
    return Error(ErrorCode::NotFound, "the TPM does not report property " + std::to_string(property));
  return list.tpmProperty[0].value;
}

Result<std::string> vendor(Esys& esys) {
  constexpr std::array kWords = {TPM2_PT_MANUFACTURER, TPM2_PT_VENDOR_STRING_1, TPM2_PT_VENDOR_STRING_2,
                                 TPM2_PT_VENDOR_STRING_3, TPM2_PT_VENDOR_STRING_4};
  std::string text;
  for (TPM2_PT word : kWords) {
    VTPM_TRY(const std::uint32_t value, property(esys, word));
    append_text(text, value);
    if (word == TPM2_PT_MANUFACTURER) append_text(text, 0);  // always apart from the vendor's string
  }
  while (text.ends_with(' '))
    text.pop_back();
  return text;
}

Result<std::uint64_t> firmware_version(Esys& esys) {
  VTPM_TRY(const std::uint64_t high, property(esys, TPM2_PT_FIRMWARE_VERSION_1));
  VTPM_TRY(const std::uint64_t low, property(esys, TPM2_PT_FIRMWARE_VERSION_2));
  return high << 32 | low;
}

Result<TPML_PCR_SELECTION> pcr_banks(Esys& esys) {
  VTPM_TRY(const Page page, capability(esys, TPM2_CAP_PCRS, 0, 1));
  return page.content->data.assignedPCR;
}

}  // namespace vtpm::tss
