// SPDX-License-Identifier: Apache-2.0
// Linked with vtpm-engine's own sources: the same program, whose jail lacks one system call. Which one, the
// name says that it is executed by: "...without-NUMBER". It takes the place of libseccomp's function in this
// program. And its keeper does not wait long for a vtpmd.
#include "daemon/engine/keeper.h"

#include <dlfcn.h>
#include <seccomp.h>
#include <sys/auxv.h>

#include <cstdlib>
#include <string_view>

const std::chrono::milliseconds vtpm::engine::kOrphanPatience{10};

namespace {

int left_out() {
  // From the kernel: the zygote has no /proc/self/exe to ask once it is jailed.
  const std::string_view name(reinterpret_cast<const char*>(::getauxval(AT_EXECFN)));
  const auto at = name.rfind("without-");
  return at == std::string_view::npos ? -1 : std::atoi(name.data() + at + 8);
}

}  // namespace

extern "C" int seccomp_rule_add_array(scmp_filter_ctx filter, std::uint32_t action, int number,
                                      unsigned count, const scmp_arg_cmp* tests) {
  using Add = decltype(&seccomp_rule_add_array);
  static const auto add = reinterpret_cast<Add>(::dlsym(RTLD_NEXT, "seccomp_rule_add_array"));
  return number == left_out() ? 0 : add(filter, action, number, count, tests);
}
