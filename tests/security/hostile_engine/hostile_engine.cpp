// SPDX-License-Identifier: Apache-2.0
// Linked with vtpm-engine's own sources: a compromised engine. Its recvmsg(2), in the place of libc's, looks
// for an order in what vtpmd sends, and obeys it from inside the real jail before the engine sees the frame.
#include "daemon/ipc/frame.h"
#include "tests/security/hostile_engine/orders.h"

#include <poll.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <string_view>

namespace {

using namespace vtpm;
using test::Obey;

constexpr int kSocket = 3;
constexpr std::size_t kPage = 4096;

std::uint32_t number_at(BytesView order, std::size_t index) {
  return get_be<std::uint32_t>(order, 1 + 4 * index);
}

// As it is, whatever ipc:: would say of it.
void send_raw(BytesView bytes, std::size_t descriptors = 0, int flags = 0) {
  iovec part{const_cast<std::uint8_t*>(bytes.data()), bytes.size()};
  alignas(cmsghdr) std::uint8_t control[CMSG_SPACE(sizeof(int) * 250)]{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (descriptors > 0) {
    message.msg_control = control;
    message.msg_controllen = CMSG_SPACE(sizeof(int) * descriptors);
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int) * descriptors);
    // All of them its own control socket: a loop of descriptors, as good as anybody's /dev/fuse.
    for (std::size_t i = 0; i < descriptors; ++i)
      std::memcpy(CMSG_DATA(header) + i * sizeof(int), &kSocket, sizeof(int));
  }
  (void)::sendmsg(kSocket, &message, flags | MSG_NOSIGNAL);
}

[[noreturn]] void be_silent() {
  for (;;)
    ::poll(nullptr, 0, -1);
}

void take_memory() {
  for (std::size_t size = 1 << 26; size >= kPage;) {
    void* block = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (block == MAP_FAILED)
      size /= 2;
    else
      for (std::size_t i = 0; i < size; i += kPage)
        static_cast<volatile std::uint8_t*>(block)[i] = 1;
  }
}

void fill_log() {
  const Bytes noise(1 << 16, 'x');
  while (::write(STDERR_FILENO, noise.data(), noise.size()) > 0) {
  }
}

void lie(Obey order, ipc::FrameHead head) {
  const Bytes answer(12);
  switch (order) {
    case Obey::WrongId:
      ++head.id;
      break;
    case Obey::WrongVerb:
      head.verb = ipc::Verb::Shutdown;
      break;
    case Obey::NotReply:
      head.reply = false;
      break;
    case Obey::Oversize:
      return send_raw(ipc::encode(head, Bytes(60000)));
    case Obey::NotFrame:
      return send_raw(Bytes(kPage, 0xff));
    case Obey::Descriptors:
      return send_raw(ipc::encode(head, answer), 1);
    case Obey::TooMany:
      return send_raw(ipc::encode(head, answer), 250);
    case Obey::Endless:
      head.more = true;
      for (;;)
        send_raw(ipc::encode(head, {}));
    default:
      break;
  }
  send_raw(ipc::encode(head, answer));
}

struct Later {
  std::uint32_t verb;
  Obey what;
};

std::optional<Later> from_name() {
  // From the kernel: the zygote has no /proc/self/exe to ask once it is jailed.
  const std::string_view name(reinterpret_cast<const char*>(::getauxval(AT_EXECFN)));
  const auto at = name.rfind("later-");
  if (at == std::string_view::npos) return {};
  char* end = nullptr;
  const auto verb = static_cast<std::uint32_t>(std::strtoul(name.data() + at + 6, &end, 10));
  return Later{verb, static_cast<Obey>(std::strtoul(end + 1, nullptr, 10))};
}

std::optional<Later> later = from_name();

void obey(Obey what, BytesView order, const ipc::FrameHead& request) {
  const ipc::FrameHead head{request.verb, true, false, request.id, 0};
  switch (what) {
    case Obey::Later:
      later = Later{number_at(order, 0), static_cast<Obey>(number_at(order, 1))};
      return;
    case Obey::Call:
      (void)::syscall(number_at(order, 0), number_at(order, 1), number_at(order, 2), number_at(order, 3), 0);
      return;
    case Obey::Executable:
      ::mmap(nullptr, kPage, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      return;
    case Obey::Memory:
      return take_memory();
    case Obey::Log:
      return fill_log();
    case Obey::Flood:
      for (int i = 0; i < 100'000; ++i)
        send_raw(ipc::encode(head, {}), 1, MSG_DONTWAIT);
      return;
    case Obey::Silence:
      be_silent();
    default:
      return lie(what, head);
  }
}

}  // namespace

extern "C" ssize_t recvmsg(int socket, msghdr* message, int flags) {
  const ssize_t size = ::syscall(SYS_recvmsg, socket, message, flags);
  if (size < 0) return size;
  const BytesView received(static_cast<const std::uint8_t*>(message->msg_iov[0].iov_base),
                           std::min(static_cast<std::size_t>(size), message->msg_iov[0].iov_len));
  const auto found = std::search(received.begin(), received.end(), test::kObey.begin(), test::kObey.end());
  const auto at = static_cast<std::size_t>(found - received.begin()) + test::kObey.size();
  const auto frame = ipc::decode(received);
  if (!frame) return size;
  if (at + 17 <= received.size())
    obey(static_cast<Obey>(received[at]), received.subspan(at), frame->head);
  else if (later && later->verb == static_cast<std::uint32_t>(frame->head.verb))
    obey(later->what, {}, frame->head);
  return size;
}
