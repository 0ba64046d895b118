/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tags as they are kept, in memory and on disk: a few bytes each, one after another. tags.c has the
 * bytes. A value (what the database keeps of a cookie) is a list of runs; merging two values only
 * joins their lists, until a value has grown so much that it is trimmed to what must be kept. So a
 * tag is rarely decoded between its arrival and a query.
 *
 * Bytes that come from disk are read within their bounds: what is no value is -EBADMSG.
 * Plain functions, no state.
 */
#ifndef MILLRACE_EVENTS_LOCAL_TAGS_H
#define MILLRACE_EVENTS_LOCAL_TAGS_H

#include "events/tag.h"

enum {
    /* More tags of an action than this are trimmed to the newest EVENT_PROFILE_KEEP. */
    TAGS_TRIM = 2 * EVENT_PROFILE_KEEP,
    TAGS_RUNS_MAX = 16,         /* more runs than this are made one */
    TAG_BYTES_MAX = 56,         /* encoded, without its text */
    TAG_RUN_HEADER_MAX = 3 * 5, /* bytes */
};

/* ---- One tag ---- */
/* Writes a tag that follows one of previous_ms (the first of a run: 0), TAG_BYTES_MAX bytes and its
 * text at most; returns how many. */
size_t tag_encode(uint8_t *out, const struct event_tag *tag, int64_t previous_ms);

/* Reads the tags of a run, one by one. */
struct tag_cursor {
    const uint8_t *at;
    const uint8_t *end;
    int64_t time_ms; /* of the last one read */
};
/* The cookie is left empty; text is a view. False at the end or at damage: at == end at the end. */
bool tag_next(struct tag_cursor *c, struct event_tag *ret_tag) MUST_USE;

/* ---- Runs and values ---- */
struct tag_run {
    uint32_t n[EVENT_ACTIONS];
    struct bytes tags;
};
/* Appends the header of a run; its tags follow. */
void tag_run_begin(struct buffer *out, const uint32_t n[EVENT_ACTIONS], size_t bytes);
/* Appends what every value begins with. */
void tag_value_begin(struct buffer *out);
/* Calls itself through the runs of a value: start with *at = 0; false at the end, ret_run
 * untouched. -EBADMSG in *ret_error, else 0. */
bool tag_value_next(struct bytes value, size_t *at, struct tag_run *ret_run,
                    int *ret_error) MUST_USE;

/* The tags of one action, found in runs that must outlive it; sorted when asked to. */
struct tag_place {
    int64_t time_ms;
    const uint8_t *at;  /* its first byte */
    const uint8_t *end; /* of its run */
    uint32_t order;     /* of arrival */
};
struct tag_places {
    struct tag_place *places;
    size_t n;
    size_t capacity;
};
struct tag_index {
    struct tag_places lists[EVENT_ACTIONS];
};
void tag_index_deinit(struct tag_index *x);
/* Adds the tags of a run, of a value. -EBADMSG, -ENOMEM. */
int tag_index_add_run(struct tag_index *x, struct bytes run) MUST_USE;
int tag_index_add_value(struct tag_index *x, struct bytes value) MUST_USE;
/* Newest first (of equal times the last to arrive), and no more than the newest
 * EVENT_PROFILE_KEEP. */
void tag_index_trim(struct tag_index *x);
/* The tag of a place. */
struct event_tag tag_at(const struct tag_place *place);
/* Appends all as the tags of one run, oldest first; ret_last_ms is the time of the last. The index
 * must be trimmed. */
void tag_index_encode(const struct tag_index *x, struct buffer *out, uint32_t ret_n[EVENT_ACTIONS],
                      int64_t *ret_last_ms);

/* Joins values, oldest first, into one. Damage makes it tag_value_damaged, which stays so: it must
 * not stop a compaction, and must not be forgotten. -ENOMEM. */
int tag_values_merge(const struct bytes *values, size_t n, struct buffer *out) MUST_USE;
/* A value in which damage was found. */
bool tag_value_damaged(struct bytes value);

#endif
