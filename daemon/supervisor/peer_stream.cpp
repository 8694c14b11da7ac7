// SPDX-License-Identifier: Apache-2.0
#include "daemon/supervisor/peer_stream.h"

#include <vtpm/os/unix_socket.h>

#include <boost/asio/error.hpp>
#include <sys/socket.h>

namespace vtpm::supervisor {

namespace errc = boost::system::errc;

PeerStream::PeerStream(const asio::any_io_executor& executor, UniqueFd socket, uid_t peer, Disposal& disposal)
    : socket_(executor), peer_(peer), disposal_(disposal) {
  boost::system::error_code error;
  socket_.assign(asio::local::stream_protocol(), socket.get(), error);
  if (error)  // every operation will say so
    disposal_.drop(peer_, Disposal::Kind::Connection, std::move(socket));
  else
    (void)socket.release();  // the other's now
}

void PeerStream::interrupt() {
  boost::system::error_code ignored;  // nothing is pending
  socket_.cancel(ignored);
}

UniqueFd PeerStream::release() {
  if (!socket_.is_open()) return {};
  boost::system::error_code ignored;
  UniqueFd socket(socket_.release(ignored));
  ::shutdown(socket.get(), SHUT_RDWR);
  return socket;
}

std::size_t PeerStream::receive(asio::mutable_buffer into, boost::system::error_code& error) {
  if (disposal_.is_busy(peer_)) {
    error = make_error_code(errc::device_or_resource_busy);
    return 0;
  }
  auto part = receive_part(socket_.native_handle(), {static_cast<std::uint8_t*>(into.data()), into.size()});
  if (!part) {
    const bool nothing = part.error().kind() == ErrorCode::Timeout;
    error = make_error_code(nothing ? errc::operation_would_block : errc::connection_reset);
  } else if (!part->fds.empty()) {
    disposal_.drop(peer_, Disposal::Kind::Passed, std::move(part->fds));
    error = make_error_code(errc::bad_message);
  } else if (part->size == 0) {
    error = asio::error::eof;
  } else {
    return part->size;
  }
  return 0;
}

}  // namespace vtpm::supervisor
