// SPDX-License-Identifier: Apache-2.0
// A space: the transient objects that one client sees, under its own handles.
#pragma once

#include "space/handles.h"

#include <vtpm/os/bytes.h>
#include <vtpm/space/resource_manager.h>

#include <map>
#include <optional>

namespace vtpm::space {

struct Space;

// A transient object (a sequence object too). Its Name, which authorizations sign, does not depend on its
// handle: so the handle may change with every load.
struct Object {
  Space* owner;
  VirtualHandle handle;
  std::uint64_t used;              // the tick of the last command that named it
  std::optional<RealHandle> real;  // in the TPM
  // Its TPMS_CONTEXT, unless it has never been out. An object does not change while it is loaded, so that
  // this may be loaded again and again; of a sequence object, which does, there is one only while it is out.
  Bytes context;

  bool loaded() const noexcept { return real.has_value(); }
};

struct Space {
  Kind kind;
  std::map<VirtualHandle, Object> objects;

  Object* find(std::uint32_t handle) {
    const auto found = objects.find(VirtualHandle{handle});
    return found == objects.end() ? nullptr : &found->second;
  }
  // The raw space's are the TPM's own numbers where they are free. In a managed one the lowest that is free,
  // whatever the neighbours hold.
  VirtualHandle handle_for(RealHandle real) const {
    const VirtualHandle same{static_cast<std::uint32_t>(real)};
    if (kind == Kind::Raw && !objects.contains(same)) return same;
    std::uint32_t handle = kTransientFirst;
    for (const auto& [taken, object] : objects)
      if (taken == VirtualHandle{handle}) ++handle;
    return VirtualHandle{handle};
  }
};

}  // namespace vtpm::space
