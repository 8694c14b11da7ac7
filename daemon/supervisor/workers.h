// SPDX-License-Identifier: Apache-2.0
// The threads for what blocks. Each pool is for one kind of work, so that a stalled kind does not stop
// another.
#pragma once

#include "daemon/supervisor/disposal.h"

#include <boost/asio/thread_pool.hpp>

namespace vtpm::supervisor {

struct Workers {
  // Borrowed: the keeper has it before there are workers.
  explicit Workers(Disposal& d) : disposal(d) {}

  boost::asio::thread_pool anchor{1};   // the anchor's TPM: one command at a time
  boost::asio::thread_pool engines{4};  // what is asked of engines but to serve: quotes and measurements
  boost::asio::thread_pool endings{8};  // the ends of engines, of which each may take its time
  boost::asio::thread_pool meters{2};   // questions for their counters, which may go unanswered
  boost::asio::thread_pool makers{2};   // the making of engines, which no tenant has touched
  boost::asio::thread_pool keeper{1};   // what the keeper is given and gives up, in order
  boost::asio::thread_pool store{1};    // SQLite: everything in it, in order
  boost::asio::thread_pool files{4};    // files that peers passed: a hostile file system may never answer
  Disposal& disposal;                   // close(2) of such files, which may never return either
};

}  // namespace vtpm::supervisor
