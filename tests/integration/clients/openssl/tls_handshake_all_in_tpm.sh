# SPDX-License-Identifier: Apache-2.0
# The same handshake with every hash and random number from the TPM as well: more hash sequences at once, copied by
# ContextSave and ContextLoad, than a TPM has slots for. A device without swapping within one client fails here.
ALL_IN_TPM=yes
. /clients/openssl/tls_handshake.sh
