/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The private parts of a shared journal: one that many processes write and many read, a log of
 * several partitions on somebody else's engine (shared_driver.h). There is no order over all of it,
 * and no lsn before the engine has given an offset, so only stores that need neither are fed by it
 * (docs/scale.md).
 *
 *   api processes ─append─▶ window ─chunks─▶ a message a partition ─▶ the log
 *                                                                      │ a group
 *   worker processes ◀── records of whole messages, in their order ◀───┘ (group.c)
 *
 * For whoever appends it is a journal like others (shared.c): but lsns are its own, mean nothing to
 * others, and are gone with it. A record's place is its partition, and there the lsn that offset
 * and place in the message make (shared_lsn).
 *
 * Nothing is sent twice unless the engine is known not to have taken it.
 */
#ifndef MILLRACE_JOURNAL_REMOTE_SHARED_H
#define MILLRACE_JOURNAL_REMOTE_SHARED_H

#include "journal/core.h"
#include "journal/shared_driver.h"

enum {
    SHARED_HEAD_BYTES = 16,
    SHARED_MESSAGE_BYTES_MAX = 900000, /* a broker takes 1 MiB, unless told otherwise */
    SHARED_INDEX_BITS = 16,            /* of a lsn: the place in the message */
    SHARED_OFFSET_BITS = 42,           /* so there is room in a number beside a lsn: for a lane */
};
static_assert(SHARED_MESSAGE_BYTES_MAX / FRAME_HEADER_BYTES < 1 << SHARED_INDEX_BITS,
              "every record of a message has a place");

static inline lsn_t shared_lsn(uint64_t offset, uint64_t index) {
    return (offset + 1) << SHARED_INDEX_BITS | index;
}
/* The message to read first when all up to lsn was seen: its own, as it may have more. */
static inline uint64_t shared_offset(lsn_t lsn) {
    return lsn ? (lsn >> SHARED_INDEX_BITS) - 1 : 0;
}

/* ---- messages: shared_message.c ---- */

/* Begins a message in out, which is empty. */
void shared_message_begin(struct buffer *out);
/* The message is whole: n frames were appended, with the salt. */
void shared_message_end(struct buffer *out, uint32_t salt, uint32_t n);
/* Appends the records of the message at offset, as struct journal_record, with their lsns; payloads
 * point into message. False: it is none, or damaged; nothing was appended. */
bool shared_message_load(struct bytes message, uint64_t offset, struct buffer *records) MUST_USE;

/* shared_driver.c: whether the URL has the parameters of its driver, and partitions that are a
 * number. LOG_E_REFUSED. */
int shared_check_url(const struct service_url *url, char why[LOG_WHY_MAX]) MUST_USE;

#endif
