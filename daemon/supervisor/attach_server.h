// SPDX-License-Identifier: Apache-2.0
// attach.sock: hooks and `vtpmctl attach` pass descriptors here. One message, one reply; several of them on a
// connection. One thread.
#pragma once

#include "daemon/supervisor/instances.h"

#include <vtpm/control/attach.h>

#include <boost/asio/posix/stream_descriptor.hpp>

#include <set>

namespace vtpm::supervisor {

class AttachServer {
 public:
  AttachServer(Rules rules, std::size_t quota, Workers& workers, Registry& registry, Instances& instances)
      : rules_(rules), quota_(quota), workers_(workers), registry_(registry), instances_(instances) {}

  // Serves one connection until the peer leaves, stalls or sends what is not a message.
  asio::awaitable<void> serve(UniqueFd socket, PeerCredentials peer);
  // Ends every connection that waits for its peer.
  void close();

 private:
  using Descriptor = asio::posix::stream_descriptor;
  using Fds = std::vector<UniqueFd>;
  class Open;

  // One message and its reply; whether there may be another.
  asio::awaitable<bool> serve_one(Descriptor& descriptor, const PeerCredentials& peer);
  Task<std::string> handle(PeerCredentials peer, Bytes message, Fds& fds);
  Task<std::string> launch(PeerCredentials peer, control::LaunchRequest request, Fds& fds);
  Task<std::string> attach(PeerCredentials peer, control::AttachRequest request, Fds& fds);
  Task<std::string> detach(PeerCredentials peer, control::DetachRequest request);
  Task<std::string> release(PeerCredentials peer, control::ReleaseRequest request);
  Task<std::string> digest_config(uid_t uid, UniqueFd& file);
  PeerFd own(const PeerCredentials& peer, UniqueFd& fd);

  Rules rules_;
  std::size_t quota_;
  Workers& workers_;
  Registry& registry_;
  Instances& instances_;
  std::set<Descriptor*> open_;
  std::set<uid_t> reading_;  // users other than root whose config.json is being read
  bool closed_ = false;
};

}  // namespace vtpm::supervisor
