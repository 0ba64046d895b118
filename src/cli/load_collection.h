/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a load of points asks the server beside the load: that the collection is there, and whether
 * everything acknowledged has become visible.
 */
#ifndef MILLRACE_CLI_LOAD_COLLECTION_H
#define MILLRACE_CLI_LOAD_COLLECTION_H

#include "cli/load_admin.h"
#include "cli/load_records.h"

/* Creates the collection unless it is there, and counts its points. */
int collection_begin(struct admin *a) MUST_USE;
int collection_end(struct admin *a, struct load_report *report) MUST_USE;

#endif
