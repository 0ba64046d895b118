/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an import has done so far: how far it came in which source, how many records were taken, and
 * the first errors. It is what the task saves, so that a later attempt goes on, and its result.
 *
 * Saved: u8 version (1), u64 source (its version), u64 seen, u64 accepted, u64 rejected, u32 n of
 * errors, block errors.
 *
 * Plain memory; no I/O.
 */
#ifndef MILLRACE_TASKS_HANDLERS_IMPORT_STATE_H
#define MILLRACE_TASKS_HANDLERS_IMPORT_STATE_H

#include "base/bytes.h"

enum { IMPORT_ERRORS_MAX = 100, IMPORT_ERRORS_BYTES_MAX = 16 << 10 };

struct import_state {
    uint64_t source; /* its version; 0: nothing was done yet */
    uint64_t seen;   /* number of the last record that is dealt with */
    uint64_t accepted;
    uint64_t rejected;
    uint32_t n_errors;    /* that are kept */
    struct buffer errors; /* {"line":n,"error":"…"}, separated by commas */
};

void import_state_deinit(struct import_state *s);
/* What an earlier attempt saved; false, and nothing is changed, when it is not of this version. */
bool import_state_load(struct import_state *s, struct bytes saved);
void import_state_save(const struct import_state *s, struct buffer *out);
/* Keeps why a record was rejected, while there is room; it does not count it. */
void import_state_note(struct import_state *s, uint64_t number, struct bytes sentence);
/* The first that was noted, or nothing. */
struct bytes import_state_first_error(const struct import_state *s);
/* {"accepted":n,"rejected":n,"errors":[…]} */
void import_state_append_result(const struct import_state *s, struct buffer *out);

#endif
