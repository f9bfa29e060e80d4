-- SPDX-License-Identifier: EUPL-1.2
-- KEYS: seats. Refused where nothing could be written: by a replica, a full server, one without enough replicas.
return call('seats', 'EXISTS', KEYS[1])
