/* SPDX-License-Identifier: Apache-2.0 */
/*
 * User tags to load, with the platform's proportions: a profile query for every 10 tags, an
 * aggregate query for every 1,000. Each thread's worker has a model of what the server may and must
 * know of the thread's own sample; as nobody else writes that, it needs no lock.
 *
 *   load_tags_draw.c   a tag from its number; its JSON from precomputed pieces
 *   load_tags_model.c  the model
 *   load_tags_ask.c    the queries, and what is wrong with an answer
 *   load_tags_end.c    once all is applied: exact checks, and every tag counted
 *   load_tags.c        the source: what comes next, what an answer means, what is told
 */
#ifndef MILLRACE_CLI_LOAD_TAGS_H
#define MILLRACE_CLI_LOAD_TAGS_H

#include "base/json.h"
#include "cli/load_tags_draw.h"

enum tag_kind { TAG_KIND_TAGS, TAG_KIND_PROFILES, TAG_KIND_AGGREGATES, TAG_KINDS };

enum {
    TAG_MINUTES = 1500,      /* that the model reaches back, a little more than a day */
    TAG_SPAN_MINUTES = 1380, /* of a run whose totals are checked: well within a day */
    TAG_KEEP = 200,          /* newest tags that a profile keeps of each action */
    TAG_KNOWN_MAX = 256,     /* newest tags that the model keeps of each action */
    TAG_RANGE_MINUTES = 10,
    TAG_RECENT = 1024,
    TAG_AGEING = 1 << 16,
};

extern const struct load_ops tag_ops;
/* start: as "2022-03-22T12:00:00". -ENOMEM, -EIO (no random numbers). */
enum { TAGS_E_START = 1, TAGS_E_HEAVY /* no cookie is left for the others */ };
int tag_source_init(struct tag_source *source, struct os *os, const char *start) MUST_USE;
void tag_source_deinit(struct tag_source *source);

/* ---- The model ---- */

/* A tag of a tracked cookie. */
struct known_tag {
    int64_t time_ms;
    uint64_t number;
    uint64_t known_ns; /* when it was acknowledged; UINT64_MAX: not, or not yet */
};

/* The newest that were sent, by time. */
struct known_list {
    struct known_tag *tags;
    uint32_t n;
    uint32_t capacity;
};

/* One combination of own origin, brand and category in a minute. */
struct tag_cell {
    struct tag_sum sent;
    struct tag_sum known; /* acknowledged */
    struct tag_sum aged;  /* acknowledged so long ago that it must show */
};

struct tag_minute {
    int64_t minute; /* INT64_MIN: none yet */
    struct tag_sum sent[TAG_ACTIONS];
    struct tag_sum known[TAG_ACTIONS];
    struct tag_cell cells[TAG_ACTIONS][TAG_OWN_ORIGINS][TAG_OWN_BRANDS][TAG_OWN_CATEGORIES];
};

struct tag_model {
    const struct tag_source *source;
    struct known_list (*lists)[TAG_ACTIONS]; /* by tracked cookie */
    uint32_t n_lists;
    struct tag_minute *minutes; /* a ring of TAG_MINUTES */
    int64_t newest_ms;          /* of what was sent */
    struct recent {             /* acknowledged tags of tracked cookies, the newest ones */
        uint64_t known_ns;
        uint32_t cookie;
    } recent[TAG_RECENT];
    uint64_t n_recent;
    struct ageing {
        uint64_t known_ns;
        uint64_t number;
    } * ageing; /* own tags that are acknowledged but need not show yet; a ring */
    uint64_t ageing_first;
    uint64_t ageing_end;
};

int tag_model_init(struct tag_model *m, const struct tag_source *source) MUST_USE;
void tag_model_deinit(struct tag_model *m);
/* Before it is sent. -ENOMEM. */
int tag_model_sent(struct tag_model *m, const struct tag *tag) MUST_USE;
void tag_model_known(struct tag_model *m, const struct tag *tag, uint64_t now_ns);
/* What must show at now_ns. */
void tag_model_age(struct tag_model *m, uint64_t now_ns);
/* The minute if the model has it, or NULL. */
const struct tag_minute *tag_model_minute(const struct tag_model *m, int64_t minute);

/* ---- Questions ---- */

struct profile_question {
    uint64_t rank;
    bool tracked;
    int64_t from_ms;
    int64_t to_ms;
    unsigned limit;
    uint64_t asked_ns;
    uint64_t visible_ns; /* what was acknowledged so long before must be there */
};

struct aggregate_question {
    int64_t first_minute;
    unsigned minutes;
    unsigned action;
    bool sum_first; /* the order of the two aggregates */
    /* Own ones to filter by, -1: not by this one. */
    int origin;
    int brand;
    int category;
    /* What must be there, taken when it was asked. */
    struct tag_sum least[TAG_RANGE_MINUTES];
};

struct tag_question {
    /* Of tags: first, first + n, … (items of them). */
    uint64_t first;
    struct profile_question profile;
    struct aggregate_question aggregate;
};

struct tag_worker {
    struct load_worker base;
    const struct tag_source *source;
    struct tag_pieces pieces;
    struct tag_model model;
    struct json_parser *parser;
    struct json_parser *expected_parser;
    struct buffer answer;
    struct buffer expected;
    struct buffer found;
    uint64_t random;
    uint64_t tags; /* taken by this thread */
    uint64_t profiles;
    uint64_t aggregates;
    uint64_t checked_profiles;
    uint64_t checked_aggregates;
    uint64_t stalest_ns; /* the greatest age at which an acknowledged tag did not show yet */
    char wrong[LOAD_SAMPLE_MAX]; /* the first */
    char complaint[LOAD_SAMPLE_MAX];
};

uint64_t tag_random(struct tag_worker *w);
void profile_ask(struct tag_worker *w, struct profile_question *q);
void profile_path(const struct tag_worker *w, const struct profile_question *q,
                  char out[LOAD_PATH_MAX]);
/* NULL, or what is wrong with the answer; of an untracked cookie only its form is looked at. */
const char *profile_check(struct tag_worker *w, const struct profile_question *q,
                          struct bytes answer);
void aggregate_ask(struct tag_worker *w, struct aggregate_question *q);
void aggregate_path(const struct tag_worker *w, const struct aggregate_question *q,
                    char out[LOAD_PATH_MAX]);
/* Reads the counts and sums of an answer whose form is right; or what is wrong with it. */
const char *aggregate_read(struct tag_worker *w, const struct aggregate_question *q,
                           struct bytes answer, struct tag_sum ret_sums[TAG_RANGE_MINUTES]);
/* What the model holds for the question's filters in a minute; no filters: nothing is known. */
struct tag_cell aggregate_expect(const struct tag_worker *w, const struct aggregate_question *q,
                                 int64_t minute);
const char *aggregate_check(struct tag_worker *w, const struct aggregate_question *q,
                            struct bytes answer);

/* ---- Begin and end ---- */

int tags_begin(struct admin *a) MUST_USE;
int tags_end(struct admin *a, struct load_report *report) MUST_USE;

#endif
