/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Exact search: every row that is not deleted is measured against the query.
 *
 *   1. The rows that the view knows are scanned without locks, in pieces, by one or more threads.
 *   2. Shard by shard, what was published meanwhile is scanned too, the last of it under the lane's
 *      lock. So all rows that are there at that moment were scanned; the live row of an id at that
 *      moment was live whenever it was looked at, since a row once deleted stays deleted. Hence no
 *      point is missed that was there all the time, however often it was replaced.
 *   3. Of several rows of one id the newest counts; rows are checked by their checksums. When that
 *      leaves fewer hits than wanted although there were more candidates, the search is done again
 *      with room for more.
 *
 * Rows without the vector are not measured, so their floats (zeros) are not read. A filter is to be
 * asked where segment_is_deleted is: before a row becomes a candidate.
 */
#include "points/local/kernel.h"
#include "points/local/topk.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>

enum { BLOCK_ROWS = 64 }; /* a word of the deleted bitmap */
#ifdef MILLRACE_TINY
enum { PIECE_ROWS = 8, UNLOCKED_ROUNDS = 1, LOCKED_ROWS_MAX = 2, THREAD_BYTES_MIN = 64, SPARE = 1 };
#else
enum {
    PIECE_ROWS = 16384,         /* what a thread takes at a time; a multiple of BLOCK_ROWS */
    UNLOCKED_ROUNDS = 4,        /* for what is published meanwhile */
    LOCKED_ROWS_MAX = 1024,     /* at most so many are left for the lock, rounds permitting */
    THREAD_BYTES_MIN = 4 << 20, /* of vectors, for one more thread to be worth its start */
    SPARE = 16,                 /* candidates beyond the limit */
};
#endif
enum { THREADS_MAX = 64 };

struct piece {
    size_t shard;
    size_t segment;
    uint32_t from;
    uint32_t to;
};

/* One search; read by all its threads. */
struct search {
    struct points_view *view;
    unsigned vector;
    const float *query;
    size_t dimension;
    size_t offset; /* of the vector in a row of floats */
    kernel_fn *kernel;
    float sign; /* rank = sign * what the kernel says */
    struct piece *pieces;
    size_t n_pieces;
    _Atomic size_t next_piece;
};

struct searcher {
    struct search *search;
    struct topk best;
    struct os_thread *thread;
};

/* ---- Scanning ---- */

static void offer_rows(const struct search *s, const struct piece *p, uint32_t row, uint32_t n,
                       const float *measures, struct topk *best) {
    const struct view_segment *v = &s->view->shards[p->shard].segments[p->segment];
    for (uint32_t i = 0; i < n; i++) {
        float rank = s->sign * measures[i];
        if (rank < best->floor) { /* as a candidate that does not fit */
            best->overflow = true;
            continue;
        }
        if (segment_is_deleted(v->segment, row + i))
            continue;
        const struct row_entry *e = storage_entry(v->storage, row + i);
        struct candidate c = {.rank = isnan(rank) ? -INFINITY : rank,
                              .row = row + i,
                              .id = row_id(e),
                              .lsn = e->lsn,
                              .shard = p->shard,
                              .segment = p->segment};
        topk_offer(best, &c);
    }
}

/* How many rows from `row` on are measured at once: one word of the bitmap, lying together. */
static uint32_t block_rows(const struct storage *storage, uint32_t row, uint32_t to) {
    uint32_t n = BLOCK_ROWS - row % BLOCK_ROWS;
    return storage_vectors_run(storage, row, n < to - row ? n : to - row);
}

/* n rows that lie together, from `row` on. */
static void measure(const struct search *s, const struct storage *storage, uint32_t row, uint32_t n,
                    float *measures) {
    s->kernel(s->query, storage_vectors(storage, row) + s->offset,
              storage->row_bytes / sizeof(float), s->dimension, n, measures);
}

/* Offers those of n rows that are present, whose lowest bit is `row`. Where most are, all are
 * measured: kernels take several rows at a time. */
static void scan_present(const struct search *s, const struct piece *p, uint32_t row, uint32_t n,
                         uint64_t present, struct topk *best) {
    const struct storage *storage = s->view->shards[p->shard].segments[p->segment].storage;
    bool most = (uint32_t)__builtin_popcountll(present) > n - n / 4;
    float measures[BLOCK_ROWS];
    if (most)
        measure(s, storage, row, n, measures);
    while (present) {
        uint32_t from = (uint32_t)__builtin_ctzll(present);
        uint64_t gaps = ~(present >> from);
        uint32_t run = gaps ? (uint32_t)__builtin_ctzll(gaps) : BLOCK_ROWS;
        if (!most)
            measure(s, storage, row + from, run, measures + from);
        offer_rows(s, p, row + from, run, measures + from, best);
        present &= ~(UINT64_MAX >> (BLOCK_ROWS - run) << from);
    }
}

static void scan(const struct search *s, const struct piece *p, struct topk *best) {
    const struct view_segment *v = &s->view->shards[p->shard].segments[p->segment];
    for (uint32_t row = p->from, n; row < p->to; row += n) {
        n = block_rows(v->storage, row, p->to);
        uint64_t absent = segment_absent_word(v->segment, s->vector, row / BLOCK_ROWS);
        uint64_t present = ~absent >> row % BLOCK_ROWS & UINT64_MAX >> (BLOCK_ROWS - n);
        if ((segment_deleted_word(v->segment, row / BLOCK_ROWS) | absent) != UINT64_MAX)
            scan_present(s, p, row, n, present, best);
    }
}

static void search_run(void *argument) {
    struct searcher *searcher = argument;
    struct search *s = searcher->search;
    for (;;) {
        size_t i = atomic_fetch_add_explicit(&s->next_piece, 1, memory_order_relaxed);
        if (i >= s->n_pieces)
            return;
        scan(s, &s->pieces[i], &searcher->best);
    }
}

/* ---- 1. What the view knows ---- */

static uint64_t cut_pieces(struct search *s, struct piece *out) {
    uint64_t rows = 0;
    s->n_pieces = 0;
    for (unsigned i = 0; i < s->view->n_shards; i++)
        for (size_t k = 0; k < s->view->shards[i].n_segments; k++) {
            struct view_segment *v = &s->view->shards[i].segments[k];
            for (uint32_t from = 0; from < v->n; from += PIECE_ROWS) {
                uint32_t to = v->n - from > PIECE_ROWS ? from + PIECE_ROWS : v->n;
                if (out)
                    out[s->n_pieces] = (struct piece){i, k, from, to};
                s->n_pieces++;
                rows += to - from;
            }
            v->scanned = v->n;
        }
    return rows;
}

static unsigned threads_for(const struct search *s, unsigned wanted, uint64_t rows) {
    uint64_t worth = rows * s->dimension * sizeof(float) / THREAD_BYTES_MIN;
    uint64_t most = worth < wanted ? worth : wanted;
    most = most < s->n_pieces ? most : s->n_pieces;
    return most > 1 ? (unsigned)(most < THREADS_MAX ? most : THREADS_MAX) : 1;
}

/* A thread that cannot be started is done without. */
static void scan_known(struct search *s, struct searcher *searchers, unsigned n) {
    struct os *os = s->view->store->os;
    for (unsigned i = 1; i < n; i++)
        if (os_thread_start(os, "search", search_run, &searchers[i], &searchers[i].thread))
            searchers[i].thread = NULL;
    search_run(&searchers[0]);
    for (unsigned i = 1; i < n; i++)
        os_thread_join(os, searchers[i].thread);
}

/* ---- 2. What was published meanwhile ---- */

static void scan_fresh(struct search *s, size_t shard, struct topk *best) {
    struct view_shard *v = &s->view->shards[shard];
    for (size_t k = 0; k < v->n_segments; k++) {
        struct piece piece = {shard, k, v->segments[k].scanned, v->segments[k].n};
        scan(s, &piece, best);
        v->segments[k].scanned = v->segments[k].n;
    }
}

static uint64_t fresh_rows(const struct view_shard *v) {
    uint64_t rows = 0;
    for (size_t k = 0; k < v->n_segments; k++)
        rows += v->segments[k].n - v->segments[k].scanned;
    return rows;
}

static int catch_up(struct search *s, size_t shard, struct topk *best) {
    struct view_shard *v = &s->view->shards[shard];
    if (!v->shard)
        return 0;
    for (unsigned round = 0;; round++) {
        mutex_lock(&v->shard->lane->lock);
        int r = view_refresh(v);
        bool last = r || round == UNLOCKED_ROUNDS || fresh_rows(v) <= LOCKED_ROWS_MAX;
        if (!r && last)
            scan_fresh(s, shard, best);
        mutex_unlock(&v->shard->lane->lock);
        if (last)
            return error_trace(r);
        scan_fresh(s, shard, best);
    }
}

/* ---- 3. From candidates to hits ---- */

static int by_id(const void *a, const void *b) {
    const struct candidate *x = a, *y = b;
    int order = point_id_compare(x->id, y->id);
    return order ? order : (x->lsn < y->lsn) - (x->lsn > y->lsn);
}

static int by_rank(const void *a, const void *b) {
    return candidate_compare(a, b);
}

/* Leaves the newest candidate of each id, best first. */
static size_t distinct(struct candidate *c, size_t n) {
    size_t kept = 0;
    qsort(c, n, sizeof *c, by_id);
    for (size_t i = 0; i < n; i++)
        if (kept == 0 || point_id_compare(c[kept - 1].id, c[i].id) != 0)
            c[kept++] = c[i];
    qsort(c, kept, sizeof *c, by_rank);
    return kept;
}

static float score_of(enum point_distance distance, float rank) {
    switch (distance) {
    case DISTANCE_EUCLID:
        return sqrtf(-rank);
    case DISTANCE_MANHATTAN:
        return -rank;
    default:
        return rank;
    }
}

static bool beyond_threshold(const struct points_search *wanted, enum point_distance distance,
                             float score) {
    if (!wanted->has_threshold)
        return false;
    return point_distance_ascends(distance) ? !(score < wanted->threshold)
                                            : !(score > wanted->threshold);
}

/* ret_short: sound hits are fewer than wanted, and not for the threshold. */
static size_t fill_hits(struct points_view *v, const struct points_search *wanted,
                        const struct candidate *c, size_t n, struct points_hit *hits,
                        bool *ret_short) {
    enum point_distance distance = v->collection->config.vectors[wanted->vector].distance;
    size_t filled = 0;
    *ret_short = true;
    for (size_t i = 0; i < n && filled < wanted->limit; i++) {
        const struct view_segment *segment = &v->shards[c[i].shard].segments[c[i].segment];
        float score = score_of(distance, c[i].rank);
        if (beyond_threshold(wanted, distance, score)) {
            *ret_short = false;
            break;
        }
        if (view_row(v, segment, c[i].row, &hits[filled].row))
            hits[filled++].score = score;
    }
    if (filled == wanted->limit)
        *ret_short = false;
    return filled;
}

/* ---- All of it ---- */

struct searchers {
    struct searcher *all;
    unsigned n;
};

static void searchers_deinit(struct searchers *s) {
    for (unsigned i = 0; i < s->n; i++)
        topk_deinit(&s->all[i].best);
    free(s->all);
}

static int searchers_init(struct searchers *s, struct search *search, unsigned n, size_t k) {
    s->all = calloc(n, sizeof *s->all);
    if (!s->all)
        return error_origin(-ENOMEM);
    for (; s->n < n; s->n++) {
        s->all[s->n].search = search;
        int r = topk_init(&s->all[s->n].best, k);
        if (r)
            return error_trace(r);
    }
    return 0;
}

/* Gathers what all threads found in one array, the caller's. */
static int gather(const struct searchers *s, struct candidate **ret_all, size_t *ret_n,
                  bool *ret_overflow) {
    size_t n = 0;
    bool overflow = false;
    for (unsigned i = 0; i < s->n; i++) {
        n += s->all[i].best.n;
        overflow |= s->all[i].best.overflow;
    }
    struct candidate *all = malloc((n ? n : 1) * sizeof *all);
    if (!all)
        return error_origin(-ENOMEM);
    n = 0;
    for (unsigned i = 0; i < s->n; i++) {
        const struct topk *best = &s->all[i].best;
        memcpy(all + n, best->heap, best->n * sizeof *all);
        n += best->n;
    }
    *ret_all = all;
    *ret_n = n;
    *ret_overflow = overflow;
    return 0;
}

/* One pass with room for k candidates. ret_again: there may be hits that it had no room for. */
static int search_pass(struct search *s, const struct points_search *wanted, size_t k,
                       struct points_hit *hits, size_t *ret_n, bool *ret_again) {
    CLEANUP(searchers_deinit) struct searchers searchers = {0};
    uint64_t rows = cut_pieces(s, NULL);
    struct piece *pieces = malloc((s->n_pieces ? s->n_pieces : 1) * sizeof *pieces);
    if (!pieces)
        return error_origin(-ENOMEM);
    cut_pieces(s, pieces);
    s->pieces = pieces;
    atomic_store(&s->next_piece, 0);
    size_t room = rows + SPARE < k ? (size_t)rows + SPARE : k;
    int r = searchers_init(&searchers, s, threads_for(s, wanted->threads, rows), room);
    if (!r)
        scan_known(s, searchers.all, searchers.n);
    free(pieces);
    for (unsigned i = 0; i < s->view->n_shards && !r; i++)
        r = catch_up(s, i, &searchers.all[0].best);
    struct candidate *all = NULL;
    size_t n = 0;
    bool overflow = false;
    if (!r)
        r = gather(&searchers, &all, &n, &overflow);
    if (r)
        return error_trace(r);
    bool too_few = false;
    *ret_n = fill_hits(s->view, wanted, all, distinct(all, n), hits, &too_few);
    *ret_again = overflow && too_few;
    free(all);
    return 0;
}

static void search_init(struct search *s, struct points_view *v, const struct points_search *wanted,
                        const float *query) {
    const struct kernel_set *kernels = kernel_best();
    const struct point_config *config = &v->collection->config;
    enum point_distance distance = config->vectors[wanted->vector].distance;
    kernel_fn *const kernel_of[DISTANCES] = {
        [DISTANCE_COSINE] = kernels->dot,
        [DISTANCE_DOT] = kernels->dot,
        [DISTANCE_EUCLID] = kernels->euclid,
        [DISTANCE_MANHATTAN] = kernels->manhattan,
    };
    *s = (struct search){.view = v,
                         .vector = wanted->vector,
                         .query = query,
                         .dimension = config->vectors[wanted->vector].dimension,
                         .offset = config->offsets[wanted->vector],
                         .kernel = kernel_of[distance],
                         .sign = point_distance_ascends(distance) ? -1.0f : 1.0f};
}

/* A copy of the query, of length 1 for Cosine. */
static float *prepare_query(const struct point_vector_config *vector, const float *query) {
    float *copy = malloc(vector->dimension * sizeof *copy);
    if (!copy)
        return NULL;
    memcpy(copy, query, vector->dimension * sizeof *copy);
    if (vector->distance == DISTANCE_COSINE)
        point_normalize(copy, vector->dimension);
    return copy;
}

int points_view_search(struct points_view *v, const struct points_search *wanted,
                       struct points_hit *hits, size_t *ret_n) {
    struct search s;
    size_t n = 0;
    int r = 0;
    assert(wanted->vector < v->collection->config.n_vectors);
    float *query = prepare_query(&v->collection->config.vectors[wanted->vector], wanted->query);
    if (!query)
        return error_origin(-ENOMEM);
    search_init(&s, v, wanted, query);
    size_t k = wanted->limit + wanted->limit / 8 + SPARE;
    bool again = wanted->limit > 0;
    for (; again && !r; k *= 2)
        r = search_pass(&s, wanted, k, hits, &n, &again);
    free(query);
    if (r)
        return error_trace(r);
    *ret_n = n;
    return 0;
}
