// SPDX-License-Identifier: Apache-2.0
// The two slot files of a durable instance, STATE_DIR/instances/ID/slot-a and slot-b: made, opened and
// removed here, read and written by its engine alone. Blocking.
#pragma once

#include <vtpm/os/result.h>
#include <vtpm/os/unique_fd.h>

#include <chrono>
#include <string>
#include <vector>

namespace vtpm::supervisor {

// Open for reading and writing. Whoever has them open holds the instance's lock (flock on slot-a, of the open
// file): it goes with the descriptors to the engine and ends with it, so that two engines never write the
// same files, whatever became of the vtpmd that started the first.
struct SlotFds {
  UniqueFd a;
  UniqueFd b;
};

class SlotFiles {
 public:
  explicit SlotFiles(const std::string& state_dir) : root_(state_dir + "/instances") {}

  // Makes the directory (0700) and two empty files (0600), and makes their names durable. On an error nothing
  // is left. There already: Conflict. A full disk: Exhausted.
  Result<SlotFds> create(const std::string& id) const;
  // Missing, or not a regular file: Corrupt, with the file's name; nothing is changed. An engine that has not
  // ended yet is waited for, at most `patience`: Busy.
  Result<SlotFds> open(const std::string& id, std::chrono::milliseconds patience) const;
  // Removes the files and the directory. What is not there is not an error.
  Result<> remove(const std::string& id) const;
  // The ids of the directories that are there.
  Result<std::vector<std::string>> present() const;

  std::string directory(const std::string& id) const { return root_ + "/" + id; }
  // For people: slot-a and slot-b, whole paths.
  std::vector<std::string> paths(const std::string& id) const;
  // A text in which an engine says "slot a" or "slot b", with the files' paths instead.
  std::string name_files(std::string text, const std::string& id) const;

 private:
  Result<UniqueFd> open_directory(const std::string& id) const;

  std::string root_;
};

}  // namespace vtpm::supervisor
