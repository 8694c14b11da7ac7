// SPDX-License-Identifier: Apache-2.0
// The pid by which vtpmd and people know an engine. In a pid namespace of its own the engine is pid 1 and has
// no way to learn it: the zygote, which is told by clone(2), writes it into a page that both have.
#pragma once

#include <sys/mman.h>
#include <sys/types.h>
#include <unistd.h>

#include <atomic>
#include <new>

namespace vtpm::engine {

class OuterPid {
 public:
  OuterPid() noexcept {
    void* page = ::mmap(nullptr, sizeof(Number), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (page != MAP_FAILED) number_ = new (page) Number(0);
  }
  ~OuterPid() {
    if (number_ != nullptr) ::munmap(number_, sizeof(Number));
  }
  OuterPid(const OuterPid&) = delete;
  OuterPid& operator=(const OuterPid&) = delete;

  // In the zygote, which then lets go of the page.
  void tell(pid_t pid) noexcept {
    if (number_ != nullptr) *number_ = pid;
  }
  // In the engine: current() is this from now on.
  void adopt() noexcept {
    adopted_ = number_;
    number_ = nullptr;
  }
  // The caller's pid as vtpmd has it; for an instant after the fork, and without the page, as we have it.
  static pid_t current() noexcept {
    const pid_t told = adopted_ != nullptr ? adopted_->load() : 0;
    return told != 0 ? told : ::getpid();
  }

 private:
  using Number = std::atomic<pid_t>;
  static_assert(Number::is_always_lock_free);
  static inline const Number* adopted_ = nullptr;
  Number* number_ = nullptr;
};

}  // namespace vtpm::engine
