// SPDX-License-Identifier: Apache-2.0
// A connection of a stream socket, for Beast. With its bytes a peer may send descriptors, which are not
// wanted: read(2) would close them on the reading thread. Here they go to the disposal, and reading fails.
#pragma once

#include "daemon/supervisor/async.h"

#include <boost/asio/buffer.hpp>
#include <boost/asio/compose.hpp>
#include <boost/asio/local/stream_protocol.hpp>

namespace vtpm::supervisor {

// Beast's AsyncStream. One thread.
class PeerStream {
 public:
  using Socket = asio::local::stream_protocol::socket;
  using executor_type = Socket::executor_type;

  // `socket` is connected and non-blocking; `disposal` outlives this.
  PeerStream(const asio::any_io_executor& executor, UniqueFd socket, uid_t peer, Disposal& disposal);

  executor_type get_executor() { return socket_.get_executor(); }
  // What is pending fails now.
  void interrupt();
  // What is pending fails, and all that follows: an operation of several steps may be between two of them.
  void cancel(boost::system::error_code& error) { socket_.shutdown(Socket::shutdown_both, error); }
  // Takes the socket out, shut down. Nothing is pending, nothing follows.
  UniqueFd release();

  // Errors: bad_message when descriptors came with the bytes; device_or_resource_busy when earlier ones of
  // this user are not closed yet.
  template <class Buffers, class Token>
  auto async_read_some(const Buffers& buffers, Token&& token) {
    const asio::mutable_buffer first = *asio::buffer_sequence_begin(buffers);
    return asio::async_compose<Token, void(boost::system::error_code, std::size_t)>(Read{*this, first}, token,
                                                                                    socket_);
  }
  template <class Buffers, class Token>
  auto async_write_some(const Buffers& buffers, Token&& token) {
    return socket_.async_write_some(buffers, std::forward<Token>(token));
  }

 private:
  struct Read {
    PeerStream& stream;
    asio::mutable_buffer into;
    bool waited = false;

    template <class Self>
    void operator()(Self& self, boost::system::error_code error = {}) {
      std::size_t size = 0;
      if (waited && !error) size = stream.receive(into, error);
      const bool wait = !waited || error == boost::system::errc::operation_would_block;
      if (!wait) return self.complete(error, size);
      waited = true;
      Socket& socket = stream.socket_;  // `self`, which is moved, has this object
      socket.async_wait(Socket::wait_read, std::move(self));
    }
  };
  std::size_t receive(asio::mutable_buffer into, boost::system::error_code& error);

  Socket socket_;
  uid_t peer_;
  Disposal& disposal_;
};

}  // namespace vtpm::supervisor
