# SPDX-License-Identifier: Apache-2.0
. /clients/prelude.sh
/programs/esys_client asynchronous
