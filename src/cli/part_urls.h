/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which parts are other programs, by the options --journal, --points, --events and --tasks.
 */
#ifndef MILLRACE_CLI_PART_URLS_H
#define MILLRACE_CLI_PART_URLS_H

#include "cli/cli.h"
#include "serve/data.h"

/* The caller's to keep as long as what is opened by them. */
struct part_urls {
    struct service_url journal;
    struct service_url events;
    struct qdrant_url points;
    struct service_url tasks;
};
/* Has data point to those that the options name. CLI_USAGE: one is wrong, which was said. */
int part_urls_set(const struct options *o, struct part_urls *urls,
                  struct data_options *data) MUST_USE;

#endif
