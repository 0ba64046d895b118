/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How many tags each minute of event time has, what they sum to, and what follows from it: the
 * watermark, which tags are late, which minutes are gone.
 *
 *   gone │ out of reach │       in reach: 24 h       │ watermark │ beyond it: fewer than
 *        floor          reach                                      EVENT_WATERMARK_TAGS tags
 *
 * The floor follows the reach by an hour of wall-clock time (minutes_floor_next), so that a wrong
 * jump can be noticed, or at once when half of EVENT_MINUTES_MAX are kept, so that new ones find
 * room; it moves only with the checkpoint that deletes what is below it.
 *
 * minute_totals is a plain table; minutes, around it, is thread-safe (LOCK_RANK_EVENT_MINUTES).
 */
#ifndef MILLRACE_EVENTS_LOCAL_MINUTES_H
#define MILLRACE_EVENTS_LOCAL_MINUTES_H

#include "events/store.h"
#include "os/sync.h"

#include <stdatomic.h>

/* ---- Totals ---- */
struct minute_total {
    int64_t minute;
    struct event_aggregate of[EVENT_ACTIONS];
};
struct minute_totals {
    struct minute_total *list; /* ascending */
    size_t n;
    size_t capacity;
};
void minute_totals_deinit(struct minute_totals *t);
/* NULL when there is none. */
struct minute_total *minute_totals_find(const struct minute_totals *t, int64_t minute);
/* Finds or makes it; NULL when memory is out. */
struct minute_total *minute_totals_at(struct minute_totals *t, int64_t minute);
int minute_totals_copy(const struct minute_totals *from, struct minute_totals *ret_to) MUST_USE;
/* Removes minutes below floor. */
void minute_totals_cut(struct minute_totals *t, int64_t floor);

/* ---- Minutes ---- */
enum { MINUTES_SAMPLES = 64 };
struct minutes {
    struct mutex lock;
    struct minute_totals totals;
    uint64_t beyond; /* tags in minutes after the watermark */
    int64_t floor;   /* minutes below it are gone; INT64_MIN: none is */
    /* The watermark as it was, about one a minute of wall-clock time, oldest first. */
    struct minutes_sample {
        uint64_t at_ns;
        int64_t watermark;
    } samples[MINUTES_SAMPLES];
    size_t n_samples;
    _Atomic int64_t watermark; /* INT64_MIN while there is none */
    _Atomic int64_t reach;     /* minutes below it are late; INT64_MIN: none is */
};
void minutes_init(struct minutes *m);
void minutes_deinit(struct minutes *m);
/* Takes over what was persisted. Before anything else. */
void minutes_restore(struct minutes *m, struct minute_totals *totals, int64_t floor);

/* A row on its way into the columns. */
struct minute_row {
    int64_t minute;
    enum event_action action;
    int32_t measure;
    bool counts; /* else nothing is done with it; set to false for a minute that is gone or too much
                  */
};
/* -ENOMEM: some are admitted, none is counted; again later. */
int minutes_admit(struct minutes *m, struct minute_row *rows, size_t n) MUST_USE;
/* Counts admitted rows. */
void minutes_count(struct minutes *m, const struct minute_row *rows, size_t n);
/* Totals of minutes from first on; zeros for what is not there or gone. */
void minutes_read(struct minutes *m, int64_t first, size_t n, enum event_action action,
                  struct event_aggregate *out);
size_t minutes_number(struct minutes *m);
int64_t minutes_floor(struct minutes *m);
/* Notes the time; returns the floor that it allows, never below the present one. */
int64_t minutes_floor_next(struct minutes *m, uint64_t now_ns);
void minutes_floor_move(struct minutes *m, int64_t floor);

#endif
