// SPDX-License-Identifier: Apache-2.0
// The TCG constants that the project names, spelled as in TCG TPM 2.0 Library Part 2 (rev 1.59) without the
// prefix.
#pragma once

#include <cstdint>

namespace vtpm::tpm {

// TPM_ST (Part 2, 6.9).
enum class Tag : std::uint16_t {
  RspCommand = 0x00c4,
  NoSessions = 0x8001,
  Sessions = 0x8002,
  AttestQuote = 0x8018
};

// TPM_RC (Part 2, 6.6): those that the project itself answers with or acts on. Others pass as numbers.
enum class ResponseCode : std::uint32_t {
  Success = 0,
  BadTag = 0x01e,
  Initialize = 0x100,
  CommandSize = 0x142,
  CommandCode = 0x143,
  NvSpace = 0x14b,
  Failure = 0x101,
  ContextGap = 0x901,
  ObjectMemory = 0x902,
  SessionMemory = 0x903,
  SessionHandles = 0x905,
  Canceled = 0x909,
  ReferenceH0 = 0x910,
  Retry = 0x922,
  NvUnavailable = 0x923,
};

// TPM_CC (Part 2, 6.5.2): those that the project sends by itself.
enum class CommandCode : std::uint32_t {
  ContextLoad = 0x161,
  ContextSave = 0x162,
  FlushContext = 0x165,
  StartAuthSession = 0x176,
  GetCapability = 0x17a,
  Startup = 0x144,
  Shutdown = 0x145,
  PCR_Extend = 0x182,
};

// TPM_ALG.
inline constexpr std::uint16_t kAlgSha256 = 0x000b;

inline constexpr std::uint32_t kHeaderSize = 10;
// libtpms' and the Linux driver's buffer: commands and responses, bytes.
inline constexpr std::uint32_t kBufferMax = 4096;

// Where an instance's provisioned objects are: TCG Registry of Reserved TPM 2.0 Handles and Localities.
inline constexpr std::uint32_t kSrkHandle = 0x81000001;
inline constexpr std::uint32_t kEkHandle = 0x81010001;
inline constexpr std::uint32_t kAkHandle =
    0x81020001;  // the IAK's place: the attestation key of the "manufacturer"

// The PCRs that a tenant can neither extend nor reset (libtpms, PlatformPcr.c).
inline constexpr unsigned kLaunchPcr = 17;    // DRTM sequence at locality 4
inline constexpr unsigned kOperatorPcr = 18;  // extended at localities 2-4
inline constexpr unsigned kPcrCount = 24;

}  // namespace vtpm::tpm
