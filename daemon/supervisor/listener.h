// SPDX-License-Identifier: Apache-2.0
// Accepting connections of a Unix socket, with limits in total and for each user. Who is over a limit is cut
// off; what has been sent into that connection is the disposal's.
#pragma once

#include "daemon/supervisor/async.h"

#include <vtpm/os/unique_fd.h>
#include <vtpm/os/unix_socket.h>

#include <boost/asio/posix/stream_descriptor.hpp>

#include <functional>
#include <map>

namespace vtpm::supervisor {

class Listener {
 public:
  // What serves one connection; the socket is non-blocking.
  using Session = std::function<asio::awaitable<void>(UniqueFd, PeerCredentials)>;

  static constexpr std::size_t kMaxConnections = 256;
  // Of all users other than root together, so that they never keep root out.
  static constexpr std::size_t kMaxOfUsers = 192;
  // Of one user other than root, so that no user keeps the others out.
  static constexpr std::size_t kMaxOfOneUser = 64;

  // `socket` is bound and listens. The listener outlives its sessions, and `disposal` the listener.
  Listener(asio::any_io_executor executor, UniqueFd socket, std::string name, Disposal& disposal,
           Session session);

  void start();
  // Stops accepting; sessions go on.
  void close();
  std::size_t connections() const noexcept { return connections_; }

 private:
  class Place;
  asio::awaitable<void> accept_all();
  asio::awaitable<void> serve(UniqueFd socket, PeerCredentials peer);
  asio::awaitable<void> accept_one();
  void accepted(UniqueFd socket);
  void refuse(UniqueFd socket, uid_t uid, std::string why);
  bool has_place(uid_t uid) const;
  void report(std::string what);
  asio::awaitable<void> report_by_the_second();

  asio::any_io_executor executor_;
  asio::posix::stream_descriptor socket_;
  std::string name_;
  Disposal& disposal_;
  Session session_;
  std::size_t connections_ = 0;
  std::map<uid_t, std::size_t> of_user_;
  std::string trouble_;       // the last one that is not in the log yet
  std::size_t troubles_ = 0;  // how many are not
  bool reporting_ = false;
  asio::steady_timer next_report_;
};

}  // namespace vtpm::supervisor
