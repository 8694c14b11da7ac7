# SPDX-License-Identifier: Apache-2.0
# The components of libvtpm: sources and allowed edges.

vtpm_component(os
  SOURCES src/os/result.cpp src/os/encoding.cpp src/os/file.cpp src/os/unix_socket.cpp src/os/process.cpp
          src/os/mount.cpp src/os/namespaces.cpp src/os/path.cpp src/os/secret.cpp src/os/text.cpp
  DEPENDS OpenSSL::Crypto Boost::headers)

# Strict JSON reading for the other components and the daemon; never in a public header.
vtpm_component(json
  SOURCES src/json/strict.cpp src/json/text.cpp
  DEPENDS vtpm_os nlohmann_json::nlohmann_json)
target_include_directories(vtpm_json PUBLIC ${CMAKE_CURRENT_SOURCE_DIR}/src)

vtpm_component(tpm
  SOURCES src/tpm/header.cpp src/tpm/digest.cpp src/tpm/public_key.cpp src/tpm/attest.cpp
          src/tpm/credential.cpp src/tpm/ek_certificate.cpp
  DEPENDS vtpm_os OpenSSL::Crypto PkgConfig::TSS2_MU)

vtpm_component(space
  SOURCES src/space/accounting.cpp src/space/capability_view.cpp src/space/command.cpp
          src/space/command_attributes.cpp src/space/execution.cpp src/space/internal_commands.cpp
          src/space/residency.cpp src/space/resource_manager.cpp src/space/session_queue.cpp src/space/state.cpp
          src/space/translation.cpp
  DEPENDS vtpm_os vtpm_tpm)

vtpm_component(log
  SOURCES src/log/merkle.cpp src/log/entry.cpp src/log/event_log.cpp src/log/json_values.cpp
  DEPENDS vtpm_os vtpm_tpm vtpm_json)

vtpm_component(evidence
  SOURCES src/evidence/authority.cpp src/evidence/enrolment.cpp src/evidence/evidence.cpp src/evidence/policy.cpp
          src/evidence/verifier.cpp
  DEPENDS vtpm_os vtpm_tpm vtpm_log vtpm_json OpenSSL::Crypto)

vtpm_component(control
  SOURCES src/control/attach.cpp src/control/http_client.cpp
  DEPENDS vtpm_os vtpm_json)

vtpm_component(device
  SOURCES src/device/cgroup.cpp src/device/fuse_node.cpp src/device/mount_point.cpp src/device/node_path.cpp src/device/oci_state.cpp
          src/device/socket_node.cpp
  DEPENDS vtpm_os vtpm_json)
