/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Journal records for people and as JSON. Pure, apart from printing.
 */
#ifndef MILLRACE_CLI_RECORD_PRINT_H
#define MILLRACE_CLI_RECORD_PRINT_H

#include "journal/journal.h"

/* Appends the members of a JSON object without its braces: "lsn":…,"time":…,"kind":…, and what the
 * payload says. */
void record_append_json(struct buffer *out, const struct journal_record *record);
/* Appends one line without its end. */
void record_append_line(struct buffer *out, const struct journal_record *record);

#endif
