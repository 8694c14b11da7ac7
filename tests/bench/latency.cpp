// SPDX-License-Identifier: Apache-2.0
// Command latency of several TPMs side by side, through tpm2-tss as its users see it.
//
// usage: bench_latency ITERATIONS NAME=TCTI...   (a TCTI of tpm2-tss, or stream:PATH)
//
// The TPMs take turns, a block of commands each, so that whatever disturbs the machine disturbs all alike.
// Prints one line per command and TPM: NAME COMMAND COUNT P50 P90, in microseconds. Quote runs a tenth of the
// iterations and CreatePrimary a fiftieth: they cost that much more.
#include "tests/bench/stream_tcti.h"

#include <tss2/tss2_esys.h>
#include <tss2/tss2_rc.h>
#include <tss2/tss2_tctildr.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace {

// A benchmark has no caller to report to: a failure says what failed and ends it.
void must(TSS2_RC code, const std::string& what) {
  if (code == TSS2_RC_SUCCESS) return;
  std::fprintf(stderr, "bench_latency: %s: %s\n", what.c_str(), Tss2_RC_Decode(code));
  std::exit(1);
}

struct FreeEsys {
  void operator()(void* memory) const { Esys_Free(memory); }
};
template <typename T>
using EsysOwned = std::unique_ptr<T, FreeEsys>;

// A P-256 key: restricted signing with ECDSA, or the TCG's storage key.
TPM2B_PUBLIC p256(bool signing) {
  TPM2B_PUBLIC key{};
  TPMT_PUBLIC& area = key.publicArea;
  area.type = TPM2_ALG_ECC;
  area.nameAlg = TPM2_ALG_SHA256;
  area.objectAttributes = TPMA_OBJECT_FIXEDTPM | TPMA_OBJECT_FIXEDPARENT | TPMA_OBJECT_SENSITIVEDATAORIGIN |
                          TPMA_OBJECT_USERWITHAUTH | TPMA_OBJECT_RESTRICTED |
                          (signing ? TPMA_OBJECT_SIGN_ENCRYPT : TPMA_OBJECT_DECRYPT);
  TPMS_ECC_PARMS& parameters = area.parameters.eccDetail;
  parameters.curveID = TPM2_ECC_NIST_P256;
  parameters.kdf.scheme = TPM2_ALG_NULL;
  if (signing) {
    parameters.symmetric.algorithm = TPM2_ALG_NULL;
    parameters.scheme.scheme = TPM2_ALG_ECDSA;
    parameters.scheme.details.ecdsa.hashAlg = TPM2_ALG_SHA256;
  } else {
    parameters.symmetric.algorithm = TPM2_ALG_AES;
    parameters.symmetric.keyBits.aes = 128;
    parameters.symmetric.mode.aes = TPM2_ALG_CFB;
    parameters.scheme.scheme = TPM2_ALG_NULL;
  }
  return key;
}

// One TPM, opened, with a signing key loaded.
class Target {
 public:
  Target(std::string name, const std::string& tcti)
      : name_(std::move(name)), held_(tcti.starts_with(kStream)) {
    open(tcti);
    must(Esys_Initialize(&esys_, tcti_, nullptr), name_ + ": Esys_Initialize");
    signing_key_ = create_primary(true);
  }
  Target(const Target&) = delete;
  Target& operator=(const Target&) = delete;
  ~Target() {
    flush(signing_key_);
    Esys_Finalize(&esys_);
    if (held_) {
      close_stream_tcti(tcti_);
    } else {
      Tss2_TctiLdr_Finalize(&tcti_);
    }
  }

  const std::string& name() const { return name_; }

  void get_random() {
    TPM2B_DIGEST* bytes = nullptr;
    must(Esys_GetRandom(esys_, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, 32, &bytes), name_ + ": GetRandom");
    const EsysOwned<TPM2B_DIGEST> owned(bytes);
  }

  void pcr_extend() {
    TPML_DIGEST_VALUES digests{};
    digests.count = 1;
    digests.digests[0].hashAlg = TPM2_ALG_SHA256;
    must(Esys_PCR_Extend(esys_, 16, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE, &digests),
         name_ + ": PCR_Extend");
  }

  void quote() {
    TPM2B_DATA nonce{};
    nonce.size = 32;
    TPMT_SIG_SCHEME scheme{};
    scheme.scheme = TPM2_ALG_NULL;
    TPML_PCR_SELECTION pcrs{};
    pcrs.count = 1;
    pcrs.pcrSelections[0] = {TPM2_ALG_SHA256, 3, {0xff, 0xff, 0xff}};
    TPM2B_ATTEST* quoted = nullptr;
    TPMT_SIGNATURE* signature = nullptr;
    must(Esys_Quote(esys_, signing_key_, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE, &nonce, &scheme, &pcrs,
                    &quoted, &signature),
         name_ + ": Quote");
    const EsysOwned<TPM2B_ATTEST> owned_quote(quoted);
    const EsysOwned<TPMT_SIGNATURE> owned_signature(signature);
  }

  ESYS_TR create_primary(bool signing) {
    const TPM2B_SENSITIVE_CREATE sensitive{};
    const TPM2B_PUBLIC area = p256(signing);
    const TPM2B_DATA outside{};
    const TPML_PCR_SELECTION pcrs{};
    ESYS_TR key = ESYS_TR_NONE;
    must(Esys_CreatePrimary(esys_, ESYS_TR_RH_OWNER, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE, &sensitive,
                            &area, &outside, &pcrs, &key, nullptr, nullptr, nullptr, nullptr),
         name_ + ": CreatePrimary");
    return key;
  }

  void flush(ESYS_TR key) { must(Esys_FlushContext(esys_, key), name_ + ": FlushContext"); }

 private:
  // "stream:PATH" is a held connection to a Unix socket; all else is tpm2-tss' to open.
  void open(const std::string& tcti) {
    if (held_) {
      tcti_ = open_stream_tcti(tcti.substr(kStream.size()));
      must(tcti_ == nullptr ? TSS2_TCTI_RC_NO_CONNECTION : TSS2_RC_SUCCESS,
           name_ + ": connecting to " + tcti);
    } else {
      must(Tss2_TctiLdr_Initialize(tcti.c_str(), &tcti_), name_ + ": opening " + tcti);
    }
  }

  static constexpr std::string_view kStream = "stream:";
  std::string name_;
  bool held_;
  TSS2_TCTI_CONTEXT* tcti_ = nullptr;
  ESYS_CONTEXT* esys_ = nullptr;
  ESYS_TR signing_key_ = ESYS_TR_NONE;
};

using Clock = std::chrono::steady_clock;
using Microseconds = std::chrono::duration<double, std::micro>;

// A command; it returns the object that it made, to be flushed outside the measurement.
struct Command {
  const char* name;
  unsigned share;  // of the iterations: one in `share`
  std::function<ESYS_TR(Target&)> run;
};

const std::vector<Command>& commands() {
  static const std::vector<Command> all = {
      {"GetRandom(32)", 1, [](Target& t) { return t.get_random(), ESYS_TR_NONE; }},
      {"PCR_Extend", 1, [](Target& t) { return t.pcr_extend(), ESYS_TR_NONE; }},
      {"Quote_P-256", 10, [](Target& t) { return t.quote(), ESYS_TR_NONE; }},
      {"CreatePrimary_P-256", 50, [](Target& t) { return t.create_primary(false); }},
  };
  return all;
}

double measure(const Command& command, Target& target) {
  const auto began = Clock::now();
  const ESYS_TR made = command.run(target);
  const double took = Microseconds(Clock::now() - began).count();
  if (made != ESYS_TR_NONE) target.flush(made);
  return took;
}

// Commands in a row on one TPM: as of a client at work, yet short beside what disturbs a machine.
constexpr unsigned kBlock = 20;

void bench(const Command& command, std::vector<std::unique_ptr<Target>>& targets, unsigned iterations) {
  const unsigned count = std::max(1U, iterations / command.share);
  std::vector<std::vector<double>> times(targets.size());
  for (auto& target : targets)
    measure(command, *target);  // the first one warms caches
  for (unsigned done = 0; done < count; done += kBlock) {
    for (std::size_t i = 0; i < targets.size(); ++i) {
      for (unsigned n = done; n < std::min(count, done + kBlock); ++n)
        times[i].push_back(measure(command, *targets[i]));
    }
  }
  for (std::size_t i = 0; i < targets.size(); ++i) {
    std::sort(times[i].begin(), times[i].end());
    const std::size_t last = times[i].size() - 1;
    std::printf("%s %s %u %.2f %.2f\n", targets[i]->name().c_str(), command.name, count, times[i][last / 2],
                times[i][last * 9 / 10]);
  }
}

}  // namespace

int main(int argc, char** argv) {
  const long iterations = argc > 2 ? std::strtol(argv[1], nullptr, 10) : 0;
  if (iterations < 1 || iterations > 10'000'000) {
    std::fprintf(stderr, "usage: bench_latency ITERATIONS NAME=TCTI...\n");
    return 2;
  }
  std::vector<std::unique_ptr<Target>> targets;
  for (const std::string argument : std::span(argv, static_cast<std::size_t>(argc)).subspan(2)) {
    const std::size_t equals = argument.find('=');
    if (equals == std::string::npos) {
      std::fprintf(stderr, "bench_latency: %s is not NAME=TCTI\n", argument.c_str());
      return 2;
    }
    targets.push_back(std::make_unique<Target>(argument.substr(0, equals), argument.substr(equals + 1)));
  }
  for (const Command& command : commands())
    bench(command, targets, static_cast<unsigned>(iterations));
  return 0;
}
