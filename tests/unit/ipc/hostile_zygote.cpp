// SPDX-License-Identifier: Apache-2.0
// In the place of vtpm-engine: a zygote that keeps silent, or lies. How, the name says that it is executed by
// ("zygote-MODE"). On its standard error it says "!" when it has come so far that there is something to see.
#include "daemon/ipc/frame.h"

#include <vtpm/os/process.h>

#include <signal.h>
#include <sys/auxv.h>
#include <unistd.h>

#include <cstdlib>
#include <string_view>

using namespace vtpm;
using ipc::Verb;

namespace {

constexpr int kControl = 3;

void say_so() {
  (void)!::write(STDERR_FILENO, "!", 1);
}

void say_ready() {
  (void)ipc::send_transfer(kControl, {Verb::Ready, false, false, 0, 0}, Bytes(4));
}

// False: vtpmd is gone.
bool say_ended(std::uint32_t pid) {
  Bytes exited;
  put_be(exited, pid);
  put_be(exited, std::uint32_t{0});
  return ipc::send_transfer(kControl, {Verb::Exited, false, false, 0, 0}, exited).has_value();
}

void tell_of_a_hundred() {
  for (std::uint32_t pid = 77 - 99; pid != 78; ++pid)
    (void)say_ended(pid);
}

std::uint32_t next_request() {
  const auto request = ipc::receive_transfer(kControl);
  if (!request) std::exit(0);
  return request->head.id;
}

// As an honest one that has made an engine: itself.
void answer(std::uint32_t id) {
  const auto pidfd = open_pidfd(::getpid());
  if (!pidfd) std::exit(1);
  const int descriptor = pidfd->get();
  Bytes pid;
  put_be(pid, static_cast<std::uint32_t>(::getpid()));
  (void)ipc::send_transfer(kControl, {Verb::Spawn, true, false, id, 0}, pid, {&descriptor, 1});
}

void wait_for_the_end() {
  while (ipc::receive_transfer(kControl)) {
  }
}

struct Mode {
  std::string_view name;
  void (*run)();
};
constexpr Mode kModes[] = {
    {"mute", wait_for_the_end},
    // It stays when nobody needs it any more.
    {"deaf",
     [] {
       say_ready();
       for (;;)
         ::pause();
     }},
    {"talkative",
     [] {
       say_ready();
       tell_of_a_hundred();
     }},
    {"evasive",
     [] {
       say_ready();
       tell_of_a_hundred();
       say_so();
       wait_for_the_end();
     }},
    {"silent",
     [] {
       say_ready();
       (void)next_request();
       say_so();
       wait_for_the_end();
     }},
    {"late",
     [] {
       say_ready();
       const auto first = next_request();
       (void)next_request();
       answer(first);
       wait_for_the_end();
     }},
    {"other-verb",
     [] {
       say_ready();
       const auto id = next_request();
       (void)ipc::send_transfer(kControl, {Verb::Shutdown, true, false, id, 0}, {});
       wait_for_the_end();
     }},
    {"other-event",
     [] {
       say_ready();
       (void)next_request();
       say_ready();
       wait_for_the_end();
     }},
    {"no-descriptor",
     [] {
       say_ready();
       const auto id = next_request();
       (void)ipc::send_transfer(kControl, {Verb::Spawn, true, false, id, 0}, Bytes(4));
       wait_for_the_end();
     }},
    {"garbage",
     [] {
       say_ready();
       (void)next_request();
       (void)send_message(kControl, Bytes(64));
       wait_for_the_end();
     }},
    {"mother",
     [] {
       say_ready();
       answer(next_request());
       (void)next_request();
       say_so();
       wait_for_the_end();
     }},
    {"endless",
     [] {
       say_ready();
       say_so();
       for (std::uint32_t pid = 2; say_ended(pid); ++pid) {
       }
     }},
};

}  // namespace

int main() {
  const std::string_view name(reinterpret_cast<const char*>(::getauxval(AT_EXECFN)));
  for (const Mode& mode : kModes)
    if (name.ends_with("zygote-" + std::string(mode.name))) mode.run();
}
