/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs: counted by lane first, then laid out in one allocation: the run, its deals, and behind them
 * the pointers to the records, each deal's together and in order.
 */
#include "work/internal.h"

#include <errno.h>
#include <stdlib.h>

/* The lane a record is to be dealt to, or NULL: another kind's, for the store as a whole, or known
 * to the store already. */
static struct lane *lane_for(struct work *w, const struct journal_record *record) {
    if (record->kind != w->ops->kind || (record->flags & JOURNAL_CONTROL))
        return NULL;
    struct lane *lane = &w->lanes[work_lane_of(w, record->key_hash)];
    return record->lsn > lane->start ? lane : NULL;
}

/* How many records a run has for each lane. */
struct run_count {
    size_t records[WORK_LANES_MAX];
    size_t total;
    size_t bytes;
    unsigned lanes;
};

static struct run_count count_run(struct work *w, const struct journal_record *records, size_t n,
                                  const struct lane *only) {
    struct run_count count = {0};
    for (size_t i = 0; i < n; i++) {
        count.bytes += sizeof records[i] + records[i].payload.size;
        struct lane *lane = lane_for(w, &records[i]);
        if (!lane || (only && lane != only))
            continue;
        count.lanes += count.records[lane->number]++ == 0;
        count.total++;
    }
    return count;
}

static int allocate_run(struct work *w, const struct run_count *count, struct run **ret_run,
                        struct deal *deal_of[WORK_LANES_MAX]) {
    size_t size = sizeof(struct run) + count->lanes * sizeof(struct deal) +
                  count->total * sizeof(struct journal_record *);
    struct run *run = malloc(size);
    if (!run)
        return error_origin(-ENOMEM);
    *run = (struct run){.bytes = count->bytes + size};
    const struct journal_record **pointers = (void *)&run->deals[count->lanes];
    for (unsigned i = 0; i < WORK_LANES_MAX; i++) {
        if (count->records[i] == 0)
            continue;
        deal_of[i] = &run->deals[run->n_deals++];
        *deal_of[i] = (struct deal){.lane = &w->lanes[i], .run = run, .records = pointers};
        pointers += count->records[i];
    }
    run->open = run->n_deals;
    *ret_run = run;
    return 0;
}

int work_run_new(struct work *w, struct journal_batch *batch, size_t at, size_t end,
                 const struct lane *only, struct run **ret_run) {
    const struct journal_record *records = batch->records + at;
    struct run_count count = count_run(w, records, end - at, only);
    struct run *run = NULL;
    struct deal *deal_of[WORK_LANES_MAX] = {0};
    int r = count.total > 0 ? allocate_run(w, &count, &run, deal_of) : 0;
    if (r)
        return error_trace(r);
    for (size_t i = 0; i < end - at; i++) {
        struct lane *lane = lane_for(w, &records[i]);
        struct deal *deal = lane ? deal_of[lane->number] : NULL;
        if (deal)
            deal->records[deal->n++] = &records[i];
    }
    if (run)
        run->batch = journal_batch_ref(batch);
    *ret_run = run;
    return 0;
}

void work_runs_free(struct run *runs) {
    while (runs) {
        struct run *run = runs;
        runs = run->next;
        journal_batch_unref(run->batch);
        free(run);
    }
}
