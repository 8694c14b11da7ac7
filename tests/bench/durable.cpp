// SPDX-License-Identifier: Apache-2.0
// What durable state costs: commands on an ephemeral and on a durable TPM, and the disk's own pwrite and
// fdatasync of as many bytes, in one run and taking turns. Over the engines' control sockets, as vtpmd speaks
// to them.
//
// usage: bench_durable DIRECTORY ITERATIONS    (the slot files and the bare file are made in DIRECTORY)
//
// Prints one line each: NAME COUNT P50 P90, in microseconds.
#include "daemon/engine/slot_store.h"
#include "tests/support/engine.h"

#include <fcntl.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

namespace {

using namespace vtpm;
using namespace vtpm::test;

constexpr u32 kIndex = 0x01800001;
constexpr int kBlock = 20;  // commands of one kind before the next kind's turn

[[noreturn]] void give_up(const std::string& what) {
  std::fprintf(stderr, "bench_durable: %s\n", what.c_str());
  std::exit(1);
}
void must_succeed(BytesView response, const char* what) {
  if (code_of(response) != 0) give_up(std::string(what) + ": " + std::to_string(code_of(response)));
}

Bytes nv_define() {
  Writer area;
  area.add(kIndex).add(u16{0x000b}).add(u32{0x00020002}).add(u16{0}).add(u16{32});
  return authorized(0x12a, kOwner, Writer().add(u16{0}).add(static_cast<u16>(area.size())).add(area));
}
Bytes nv_write(u8 value) {
  Writer rest;
  rest.add(kOwner).add(kIndex).add(u32{9}).add(u32{0x40000009}).add(u16{0}).add(u8{0}).add(u16{0});
  rest.add(u16{32}).add(Bytes(32, value)).add(u16{0});
  Bytes out = command(0x137, rest);
  out[1] = 0x02;  // TPM_ST_SESSIONS
  return out;
}

UniqueFd file_in(const std::string& directory, const char* name) {
  UniqueFd fd(::open((directory + "/" + name).c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!fd) give_up("cannot make a file in " + directory);
  return fd;
}

struct Row {
  const char* name;
  std::function<void()> run;
  std::vector<double> times = {};  // microseconds
};

void measure(Row& row) {
  for (int i = 0; i < kBlock; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    row.run();
    row.times.push_back(
        std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - begin).count());
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) give_up("usage: bench_durable DIRECTORY ITERATIONS");
  const std::string directory = argv[1];
  const int iterations = std::atoi(argv[2]);
  const auto zygote = start_zygote();
  const auto ephemeral = zygote->spawn();
  const auto durable = zygote->spawn();
  if (!ephemeral || !durable || !ephemeral->link->power_on() ||
      !durable->link->power_on_durable({1}, Secret(Bytes(ipc::kStateKeySize, 1)), 0,
                                       file_in(directory, "slot-a"), file_in(directory, "slot-b")))
    give_up("an engine does not start");
  for (auto* link : {ephemeral->link.get(), durable->link.get()}) {
    must_succeed(run(*link, startup_clear()), "Startup");
    must_succeed(run(*link, nv_define()), "NV_DefineSpace");
  }
  const auto bare = file_in(directory, "bare");
  const std::size_t state = durable->link->permanent_state().value().size() + engine::kSlotHeaderSize;
  const Bytes block((state / engine::kSlotBlock + 1) * engine::kSlotBlock, 0x55);
  if (::pwrite(bare.get(), Bytes(engine::kSlotReserve).data(), engine::kSlotReserve, 0) < 0)
    give_up("pwrite");
  u8 value = 0;
  const auto on = [](ipc::EngineLink& link, BytesView bytes) { must_succeed(run(link, bytes), "a command"); };
  std::vector<Row> rows = {
      {"ephemeral GetRandom", [&] { on(*ephemeral->link, get_random(32)); }},
      {"ephemeral PCR_Extend", [&] { on(*ephemeral->link, pcr_extend(10, {})); }},
      {"ephemeral NV_Write-32", [&] { on(*ephemeral->link, nv_write(++value)); }},
      {"durable GetRandom", [&] { on(*durable->link, get_random(32)); }},
      {"durable PCR_Extend", [&] { on(*durable->link, pcr_extend(10, {})); }},
      {"durable NV_Write-32", [&] { on(*durable->link, nv_write(++value)); }},
      {"disk pwrite+fdatasync",
       [&] {
         if (::pwrite(bare.get(), block.data(), block.size(), 0) < 0 || ::fdatasync(bare.get()) != 0)
           give_up("fdatasync");
       }},
  };
  for (int i = 0; i < iterations; i += kBlock)
    for (Row& row : rows)
      measure(row);
  std::printf("a commit is %zu bytes\n", block.size());
  for (Row& row : rows) {
    std::ranges::sort(row.times);
    std::printf("%-22s %6zu %9.1f %9.1f\n", row.name, row.times.size(), row.times[row.times.size() / 2],
                row.times[row.times.size() * 9 / 10]);
  }
  return 0;
}
