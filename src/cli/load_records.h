/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Points to load: a source of records with random vectors, or of the movies. A record is made from
 * the seed and its number alone.
 */
#ifndef MILLRACE_CLI_LOAD_RECORDS_H
#define MILLRACE_CLI_LOAD_RECORDS_H

#include "cli/load.h"

enum { LOAD_COLLECTION_MAX = 255 };

struct record_source {
    struct load_source base;
    char path[LOAD_PATH_MAX];
    char collection[LOAD_COLLECTION_MAX + 1];
    unsigned dimension;
    char (*digits)[4];    /* "0000" to "9999" */
    struct buffer movies; /* the payloads, one behind the other */
    uint32_t *movie_ends; /* where each ends */
    uint32_t n_movies;
    uint64_t points_before; /* in the collection when it began */
};

/* wait: ask for wait=true. -ENOMEM. */
int record_source_records(struct record_source *source, const char *collection, bool wait) MUST_USE;
enum { LOAD_E_NO_MOVIES = 1 }; /* the binary was built without them */
int record_source_movies(struct record_source *source, const char *collection) MUST_USE;
void record_source_deinit(struct record_source *source);
/* Appends the body with the records first to first + n - 1. */
void record_append_body(const struct record_source *source, uint64_t first, uint64_t n,
                        struct buffer *out);

#endif
