/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Scroll: rows in the order of ids, a page at a time.
 *
 * Every segment has, from its first scroll on, the order of its rows by id (segment_order); what a
 * growing one got since is sorted for the page, or folded into a new order once it is much or the
 * segment stands still. So a page is a merge of sorted runs, begun by binary search.
 *
 * The runs hold dead rows too. An id whose rows in the runs are all dead was deleted, or replaced
 * by a row that is newer than the view: the id map knows. So an id that exists all the time is
 * found whatever is written meanwhile, and each id comes once.
 */
#include "points/local/view.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#ifdef MILLRACE_TINY
enum { TAIL_MAX = 2 };
#else
enum { TAIL_MAX = 64 };
#endif
enum { TAIL_SHARE = 64 }; /* and a 64th of the segment */

/* ---- Orders ---- */

struct sort_key {
    struct point_id id;
    uint32_t row;
};

static int compare_keys(const void *a, const void *b) {
    const struct sort_key *x = a, *y = b;
    int order = point_id_compare(x->id, y->id);
    return order ? order : (x->row > y->row) - (x->row < y->row);
}

/* Writes the rows from … to-1 to out in the order of their ids. */
static int sort_rows(const struct storage *storage, uint32_t from, uint32_t to, uint32_t *out) {
    uint32_t n = to - from;
    struct sort_key *keys = malloc((n ? n : 1) * sizeof *keys);
    if (!keys)
        return error_origin(-ENOMEM);
    for (uint32_t i = 0; i < n; i++)
        keys[i] =
            (struct sort_key){.id = row_id(storage_entry(storage, from + i)), .row = from + i};
    qsort(keys, n, sizeof *keys, compare_keys);
    for (uint32_t i = 0; i < n; i++)
        out[i] = keys[i].row;
    free(keys);
    return 0;
}

static int compare_rows(const struct storage *storage, uint32_t a, uint32_t b) {
    return point_id_compare(row_id(storage_entry(storage, a)), row_id(storage_entry(storage, b)));
}

/* Merges two sorted runs of rows of one segment; of equal ids those of a come first. */
static void merge_rows(const struct storage *storage, const uint32_t *a, uint32_t n_a,
                       const uint32_t *b, uint32_t n_b, uint32_t *out) {
    uint32_t i = 0, k = 0;
    while (i < n_a || k < n_b) {
        bool from_a = k == n_b || (i < n_a && compare_rows(storage, a[i], b[k]) <= 0);
        *out++ = from_a ? a[i++] : b[k++];
    }
}

/* The order of all rows of v, from that of the first old_n. */
static int fill_order(const struct view_segment *v, const uint32_t *old, uint32_t old_n,
                      uint32_t *out) {
    uint32_t n = v->n - old_n;
    uint32_t *tail = malloc((n ? n : 1) * sizeof *tail);
    if (!tail)
        return error_origin(-ENOMEM);
    int r = sort_rows(v->storage, old_n, v->n, tail);
    if (!r)
        merge_rows(v->storage, old, old_n, tail, n, out);
    free(tail);
    return error_trace(r);
}

static int order_new(const struct view_segment *v, const struct segment_order *old,
                     struct segment_order **ret_order) {
    struct segment_order *order = malloc(sizeof *order + v->n * sizeof *order->rows);
    if (!order)
        return error_origin(-ENOMEM);
    atomic_init(&order->references, 1);
    order->n = v->n;
    int r = fill_order(v, old ? old->rows : NULL, old ? old->n : 0, order->rows);
    if (r)
        free(order);
    else
        *ret_order = order;
    return error_trace(r);
}

/* An order may know rows that came after the view, which a storage that was spilled meanwhile does
 * not have. */
static int current_order(struct view_shard *shard, struct view_segment *v,
                         struct segment_order **ret_order) {
    int r = 0;
    mutex_lock(&shard->shard->lane->lock);
    struct segment_order *order = v->segment->order;
    if (order && order->n > v->n)
        r = view_keep_up(shard, v);
    if (!r)
        *ret_order = order ? segment_order_ref(order) : NULL;
    mutex_unlock(&shard->shard->lane->lock);
    return error_trace(r);
}

/* Others may have made one meanwhile: the longer stays. */
static void publish_order(const struct view_shard *shard, const struct view_segment *v,
                          struct segment_order *order) {
    struct segment_order *worse = NULL;
    assert(order);
    mutex_lock(&shard->shard->lane->lock);
    if (!v->segment->order || v->segment->order->n < order->n) {
        worse = v->segment->order;
        v->segment->order = segment_order_ref(order);
    }
    mutex_unlock(&shard->shard->lane->lock);
    segment_order_unref(worse);
}

static bool order_is_due(const struct view_segment *v, const struct segment_order *order) {
    uint32_t covered = order ? order->n : 0;
    bool stands_still = atomic_exchange(&v->segment->scrolled_n, v->n) == v->n;
    if (covered >= v->n)
        return false;
    return stands_still || v->n - covered > TAIL_MAX + v->n / TAIL_SHARE;
}

/* A reference to an order that covers all of the segment but for a short tail; NULL: all is tail.
 */
static int get_order(struct view_shard *shard, struct view_segment *v,
                     struct segment_order **ret_order) {
    struct segment_order *order = NULL;
    int r = current_order(shard, v, &order);
    if (r)
        return error_trace(r);
    if (order_is_due(v, order)) {
        struct segment_order *fresh = NULL;
        r = order_new(v, order, &fresh);
        segment_order_unref(order);
        if (r)
            return error_trace(r);
        publish_order(shard, v, fresh);
        order = fresh;
    }
    *ret_order = order;
    return 0;
}

/* ---- Runs ---- */

struct run {
    struct view_shard *shard;
    size_t segment; /* its place in the shard's view, which may grow under us */
    struct segment_order *order;
    uint32_t *owned; /* a tail's rows */
    const uint32_t *rows;
    uint32_t n;
    uint32_t at;
    struct point_id head; /* the id of rows[at] */
};

struct merge {
    struct points_view *view;
    struct run *runs;
    size_t n;
};

static void merge_deinit(struct merge *m) {
    for (size_t i = 0; i < m->n; i++) {
        segment_order_unref(m->runs[i].order);
        free(m->runs[i].owned);
    }
    free(m->runs);
}

static const struct row_entry *run_entry(const struct run *run, uint32_t at) {
    return storage_entry(run->shard->segments[run->segment].storage, run->rows[at]);
}

static void run_move(struct run *run, uint32_t at) {
    run->at = at;
    if (at < run->n)
        run->head = row_id(run_entry(run, at));
}

/* Moves to the first row whose id is not below from. */
static void run_seek(struct run *run, const struct point_id *from) {
    uint32_t low = 0, high = from ? run->n : 0;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (point_id_compare(row_id(run_entry(run, middle)), *from) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    run_move(run, low);
}

/* The rows of a segment from `from` on, sorted for this page. */
static int add_tail(struct merge *m, struct view_shard *shard, size_t segment, uint32_t from) {
    const struct view_segment *v = &shard->segments[segment];
    struct run run = {.shard = shard, .segment = segment, .n = v->n - from};
    run.owned = calloc(run.n, sizeof *run.owned);
    if (!run.owned)
        return error_origin(-ENOMEM);
    run.rows = run.owned;
    int r = sort_rows(v->storage, from, v->n, run.owned);
    if (r)
        free(run.owned);
    else
        m->runs[m->n++] = run;
    return error_trace(r);
}

/* One or two runs for a segment: its order, and the rows behind that. */
static int add_runs(struct merge *m, struct view_shard *shard, size_t segment) {
    struct view_segment *v = &shard->segments[segment];
    struct run run = {.shard = shard, .segment = segment};
    int r = get_order(shard, v, &run.order);
    if (r)
        return error_trace(r);
    uint32_t covered = 0;
    if (run.order) { /* of a later moment perhaps: rows beyond the view's n are sound too */
        run.rows = run.order->rows;
        run.n = covered = run.order->n;
        m->runs[m->n++] = run;
    }
    if (covered >= v->n)
        return 0;
    return error_trace(add_tail(m, shard, segment, covered));
}

static int merge_init(struct merge *m, struct points_view *view, const struct point_id *from) {
    size_t segments = 0;
    for (unsigned i = 0; i < view->n_shards; i++)
        segments += view->shards[i].n_segments;
    *m = (struct merge){.view = view, .runs = calloc(2 * segments + 1, sizeof *m->runs)};
    if (!m->runs)
        return error_origin(-ENOMEM);
    for (unsigned i = 0; i < view->n_shards; i++)
        for (size_t k = 0; k < view->shards[i].n_segments; k++) {
            int r = add_runs(m, &view->shards[i], k);
            if (r)
                return error_trace(r);
        }
    for (size_t i = 0; i < m->n; i++)
        run_seek(&m->runs[i], from);
    return 0;
}

static struct run *merge_least(struct merge *m) {
    struct run *least = NULL;
    for (size_t i = 0; i < m->n; i++) {
        struct run *run = &m->runs[i];
        if (run->at < run->n && (!least || point_id_compare(run->head, least->head) < 0))
            least = run;
    }
    return least;
}

/* The newest row of an id that is not deleted. */
struct choice {
    const struct run *run;
    uint32_t row;
    lsn_t lsn;
};

/* Moves the run past all its rows of that id. */
static void consider(struct run *run, struct point_id id, struct choice *best) {
    const struct segment *segment = run->shard->segments[run->segment].segment;
    while (run->at < run->n && point_id_compare(run->head, id) == 0) {
        uint32_t row = run->rows[run->at];
        lsn_t lsn = run_entry(run, run->at)->lsn;
        if (!segment_is_deleted(segment, row) && (!best->run || lsn > best->lsn))
            *best = (struct choice){.run = run, .row = row, .lsn = lsn};
        run_move(run, run->at + 1);
    }
}

/* The next id that is there and sound. False: there is none. */
static int merge_next(struct merge *m, struct point_row *ret_row, bool *ret_found) {
    for (struct run *least; (least = merge_least(m));) {
        struct choice best = {0};
        struct point_id id = least->head;
        for (size_t i = 0; i < m->n; i++)
            consider(&m->runs[i], id, &best);
        if (best.run) {
            *ret_found =
                view_row(m->view, &best.run->shard->segments[best.run->segment], best.row, ret_row);
        } else {
            int r = view_shard_get(m->view, least->shard, id, ret_row);
            if (r && r != POINTS_E_NOT_FOUND && r != -EBADMSG)
                return error_trace(r);
            *ret_found = r == 0;
        }
        if (*ret_found)
            return 0;
    }
    *ret_found = false;
    return 0;
}

/* A page from a merge. ret_beyond: the row after it, if ret_more. */
static int take_page(struct merge *m, size_t limit, struct point_row *rows, size_t *ret_n,
                     struct point_row *ret_beyond, bool *ret_more) {
    bool found = true;
    size_t n = 0;
    while (found && n < limit) {
        int r = merge_next(m, &rows[n], &found);
        if (r)
            return error_trace(r);
        n += found;
    }
    *ret_n = n;
    *ret_more = found;
    return found ? error_trace(merge_next(m, ret_beyond, ret_more)) : 0;
}

int points_view_scroll(struct points_view *v, const struct point_id *from, size_t limit,
                       struct point_row *rows, size_t *ret_n, struct point_id *ret_next,
                       bool *ret_more) {
    struct merge m = {0};
    struct point_row beyond = {0};
    bool more = false;
    size_t n = 0;
    int r = merge_init(&m, v, from);
    if (!r)
        r = take_page(&m, limit, rows, &n, &beyond, &more);
    merge_deinit(&m);
    if (r)
        return error_trace(r);
    *ret_n = n;
    *ret_more = more;
    if (more)
        *ret_next = beyond.id;
    return 0;
}
