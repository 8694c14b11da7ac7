// SPDX-License-Identifier: Apache-2.0
#include "tests/bench/stream_tcti.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>

namespace {

struct StreamContext {
  TSS2_TCTI_CONTEXT_COMMON_V1 common;
  int socket;
};

StreamContext* stream(TSS2_TCTI_CONTEXT* context) {
  return reinterpret_cast<StreamContext*>(context);
}

TSS2_RC transmit(TSS2_TCTI_CONTEXT* context, std::size_t size, const std::uint8_t* command) {
  const ssize_t sent = send(stream(context)->socket, command, size, MSG_NOSIGNAL);
  return sent == static_cast<ssize_t>(size) ? TSS2_RC_SUCCESS : TSS2_TCTI_RC_IO_ERROR;
}

// ESYS asks with its largest buffer; swtpm sends a response in one piece, and a benchmark may insist on it.
TSS2_RC receive(TSS2_TCTI_CONTEXT* context, std::size_t* size, std::uint8_t* response, std::int32_t) {
  if (response == nullptr) {
    *size = 4096;
    return TSS2_RC_SUCCESS;
  }
  const ssize_t got = recv(stream(context)->socket, response, *size, 0);
  if (got < 10) return TSS2_TCTI_RC_IO_ERROR;
  *size = static_cast<std::size_t>(got);
  return TSS2_RC_SUCCESS;
}

}  // namespace

TSS2_TCTI_CONTEXT* open_stream_tcti(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  const int connection = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (connection < 0) return nullptr;
  if (connect(connection, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    close(connection);
    return nullptr;
  }
  auto* context = static_cast<StreamContext*>(std::calloc(1, sizeof(StreamContext)));
  if (context == nullptr) std::abort();
  context->common.version = 1;
  context->common.transmit = transmit;
  context->common.receive = receive;
  context->socket = connection;
  return reinterpret_cast<TSS2_TCTI_CONTEXT*>(context);
}

void close_stream_tcti(TSS2_TCTI_CONTEXT* context) {
  close(stream(context)->socket);
  std::free(context);
}
