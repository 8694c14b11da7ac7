// SPDX-License-Identifier: Apache-2.0
// A TPM as a client of tpm2-tss has it, with the commands that are measured.
#pragma once

#include <tss2/tss2_esys.h>

#include <cstdint>
#include <string>

// A benchmark has no caller to report to: a failure says what failed and ends it.
void must(TSS2_RC code, const std::string& what);

// One TPM, opened, if wanted with a signing key loaded.
class Target {
 public:
  // "stream:PATH" is a held connection to a Unix socket; all else is tpm2-tss' to open.
  Target(std::string name, const std::string& tcti, bool signing = true);
  Target(const Target&) = delete;
  Target& operator=(const Target&) = delete;
  ~Target();

  const std::string& name() const { return name_; }

  void get_random();
  void pcr_extend();
  void quote();
  // Ready-made bytes: ESYS computes an index' Name at every NV_Write, which takes it ten times as long as the
  // TPM needs. 32 bytes either.
  void get_random_bare();
  void nv_write();
  ESYS_TR create_primary(bool signing);
  // An HMAC key, and its use.
  ESYS_TR create_hmac_key();
  void hmac(ESYS_TR key);
  ESYS_TR load(const TPMS_CONTEXT& context);
  TPMS_CONTEXT save(ESYS_TR key);
  void flush(ESYS_TR key);

 private:
  void open(const std::string& tcti);
  void define_index();
  void bare(const std::uint8_t* command, std::size_t size, const std::string& what);

  std::string name_;
  bool held_;
  TSS2_TCTI_CONTEXT* tcti_ = nullptr;
  ESYS_CONTEXT* esys_ = nullptr;
  ESYS_TR signing_key_ = ESYS_TR_NONE;
  ESYS_TR index_ = ESYS_TR_NONE;
  std::uint32_t written_ = 0;
};
