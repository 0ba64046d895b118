/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the events store alone costs, without HTTP and journal: applying tags, checkpoints and
 * compaction in CPU time a tag, bytes on disk a tag, and the time of queries afterwards.
 *
 *   bench-events-store DIRECTORY [tags [cookies [tags-a-minute [hot-MiB [cache-MiB]]]]]
 */
#include "base/arena.h"
#include "events/store.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { BATCH = 512, LANES = 4, QUERIES = 5000, AGGREGATES = 100 };

/* Elements of each collection, and of those that are filtered by, in schema.def's order. */
static const uint64_t collection_sizes[EVENT_COLLECTIONS_FIXED - 1] = {100, 1000, 250, 67};
static const uint64_t *const filter_sizes = collection_sizes + 1;

struct bench {
    struct events_store *store;
    uint64_t tags;
    uint64_t cookies;
    uint64_t a_minute;
    uint64_t hot_bytes;
    uint64_t state;
    double apply_s;
    double checkpoint_s;
    struct buffer payloads[LANES];
    struct journal_record records[LANES][BATCH];
    size_t n[LANES];
    lsn_t lsn;
};

static void must(int r, const char *what) {
    if (r == 0)
        return;
    fprintf(stderr, "%s: %d\n", what, r);
    exit(1);
}

static double seconds(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static uint64_t below(struct bench *b, uint64_t n) {
    return hash64_u64(b->state++) % n;
}

/* Skewed: half of the tags are of a quarter of the cookies. */
static uint64_t some_cookie(struct bench *b) {
    double u = (double)below(b, 1 << 30) / (1 << 30);
    return (uint64_t)(u * u * (double)b->cookies);
}

static size_t cookie_text(uint64_t cookie, char out[32]) {
    return (size_t)snprintf(out, 32, "c%015llx", (unsigned long long)hash64_u64(cookie));
}

static void add_record(struct bench *b, uint64_t i) {
    char cookie[32];
    size_t size = cookie_text(some_cookie(b), cookie);
    struct event_tag tag = {.time_ms = INT64_C(1647950000000) +
                                       (int64_t)(i * EVENT_MINUTE_MS / b->a_minute),
                            .cookie = bytes_of(cookie, size),
                            .device = (enum event_device)below(b, EVENT_DEVICES),
                            .action = below(b, 10) == 0 ? EVENT_BUY : EVENT_VIEW,
                            .measure = (int32_t)below(b, 100000),
                            .product_number = (int64_t)below(b, 10000)};
    for (unsigned c = 1; c < EVENT_COLLECTIONS_FIXED; c++)
        tag.ids[c] = 1 + (uint32_t)below(b, collection_sizes[c - 1]);
    uint64_t hash = event_key_hash(tag.cookie);
    unsigned lane = work_lane_of_hash(hash, LANES);
    size_t before = b->payloads[lane].size;
    event_record_encode_tag(&b->payloads[lane], &tag, false);
    b->records[lane][b->n[lane]++] = (struct journal_record){
        .lsn = ++b->lsn, .key_hash = hash, .payload = {NULL, b->payloads[lane].size - before}};
}

static void checkpoint(struct bench *b) {
    double start = seconds(CLOCK_THREAD_CPUTIME_ID);
    must(events_store_checkpoint(b->store, NULL), "checkpoint");
    b->checkpoint_s += seconds(CLOCK_THREAD_CPUTIME_ID) - start;
}

static void apply(struct bench *b, unsigned lane) {
    const struct journal_record *list[BATCH];
    struct work_verdict v;
    const uint8_t *at = b->payloads[lane].data;
    for (size_t i = 0; i < b->n[lane]; i++) {
        b->records[lane][i].payload.data = at;
        at += b->records[lane][i].payload.size;
        list[i] = &b->records[lane][i];
    }
    double start = seconds(CLOCK_THREAD_CPUTIME_ID);
    must(events_store_work_ops.apply(b->store, lane, list, b->n[lane], &v), "apply");
    b->apply_s += seconds(CLOCK_THREAD_CPUTIME_ID) - start;
    must(v.outcome != WORK_OK, v.reason);
    b->n[lane] = 0;
    buffer_clear(&b->payloads[lane]);
}

static void load(struct bench *b) {
    for (uint64_t i = 0; i < b->tags; i++) {
        add_record(b, i);
        for (unsigned lane = 0; lane < LANES; lane++)
            if (b->n[lane] == BATCH || i + 1 == b->tags)
                apply(b, lane);
        if (i % 4096 == 0 && events_store_dirty_bytes(b->store) > b->hot_bytes)
            checkpoint(b);
    }
    checkpoint(b);
}

/* ---- Queries ---- */
static int compare_doubles(const void *a, const void *b) {
    const double *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

static void report(const char *what, double *ms, size_t n) {
    qsort(ms, n, sizeof *ms, compare_doubles);
    printf("%s: p50 %.3f ms, p99 %.3f ms, most %.3f ms\n", what, ms[n / 2], ms[n * 99 / 100],
           ms[n - 1]);
}

static void query_profiles(struct bench *b) {
    static double ms[QUERIES];
    struct arena arena = ARENA_INIT(1 << 20);
    uint64_t tags = 0;
    for (size_t i = 0; i < QUERIES; i++) {
        char cookie[32];
        struct event_profile profile = {.arena = &arena};
        struct bytes text = bytes_of(cookie, cookie_text(some_cookie(b), cookie));
        double start = seconds(CLOCK_MONOTONIC);
        must(events_store_profile(b->store, text, INT64_MIN, INT64_MAX, 200, &profile), "profile");
        ms[i] = (seconds(CLOCK_MONOTONIC) - start) * 1000;
        tags += profile.lists[EVENT_VIEW].n + profile.lists[EVENT_BUY].n;
        arena_reset(&arena);
    }
    arena_deinit(&arena);
    printf("%.1f tags a profile\n", (double)tags / QUERIES);
    report("profiles", ms, QUERIES);
}

static void query_aggregates(struct bench *b, unsigned mask) {
    static double ms[AGGREGATES];
    char what[64];
    uint64_t minutes = b->tags / b->a_minute + 1, rows = 0;
    for (size_t i = 0; i < AGGREGATES; i++) {
        struct event_aggregate out[EVENT_RANGE_MINUTES_MAX];
        struct event_aggregate_query q = {.first_minute =
                                              INT64_C(1647950000000) / EVENT_MINUTE_MS +
                                              (int64_t)below(b, minutes > 10 ? minutes - 9 : 1),
                                          .minutes = EVENT_RANGE_MINUTES_MAX};
        for (unsigned f = 0; f < EVENT_FILTERS; f++)
            q.ids[f] = mask >> f & 1 ? 1 + (uint32_t)below(b, filter_sizes[f]) : 0;
        double start = seconds(CLOCK_MONOTONIC);
        must(events_store_aggregate(b->store, &q, out), "aggregate");
        ms[i] = (seconds(CLOCK_MONOTONIC) - start) * 1000;
        rows += out[0].count;
    }
    snprintf(what, sizeof what, "aggregates, filters %u (%llu rows)", mask,
             (unsigned long long)rows);
    report(what, ms, AGGREGATES);
}

static void say_store(struct bench *b) {
    struct events_store_stats stats;
    events_store_stats(b->store, &stats);
    printf("disk %.1f bytes a tag, memory %.0f MiB, minutes %llu\n",
           (double)stats.disk_bytes / (double)b->tags, (double)stats.memory_bytes / (1 << 20),
           (unsigned long long)stats.minutes);
}

static void query_all(struct bench *b, const char *when) {
    printf("-- %s\n", when);
    say_store(b);
    query_profiles(b);
    for (unsigned mask = 0; mask < 8; mask++)
        query_aggregates(b, mask);
}

/* Until no other thread of the process works any more: RocksDB has compacted. */
static void settle(struct bench *b) {
    const struct timespec pause = {2, 0};
    double before = 0;
    (void)b;
    for (unsigned i = 0; i < 30 && seconds(CLOCK_PROCESS_CPUTIME_ID) - before > 0.01; i++) {
        before = seconds(CLOCK_PROCESS_CPUTIME_ID);
        nanosleep(&pause, NULL);
    }
}

static uint64_t number(int argc, char **argv, int i, uint64_t otherwise) {
    return argc > i ? strtoull(argv[i], NULL, 10) : otherwise;
}

int main(int argc, char **argv) {
    static struct bench b;
    setvbuf(stdout, NULL, _IOLBF, 0);
    struct event_dictionary *dictionary;
    struct event_once *once;
    struct events_store_report found;
    char why[256] = "";
    if (argc < 2)
        return 1;
    b.tags = number(argc, argv, 2, 20000000);
    b.cookies = number(argc, argv, 3, 1000000);
    b.a_minute = number(argc, argv, 4, 60000);
    b.hot_bytes = number(argc, argv, 5, 96) << 20;
    struct events_store_options options = {.lanes = LANES,
                                           .cache_bytes = number(argc, argv, 6, 64) << 20};
    const struct event_dictionary_options dictionary_options = {0};
    must(event_dictionary_new(&dictionary_options, &dictionary), "dictionary");
    must(event_once_new(os_real(), &(struct event_once_options){.keys_max = 1000}, &once), "keys");
    double start = seconds(CLOCK_MONOTONIC);
    int r = events_store_open(os_real(), argv[1], dictionary, once, &options, &b.store, &found, why,
                              sizeof why);
    must(r, why);
    printf("open %.3f s\n", seconds(CLOCK_MONOTONIC) - start);
    if (b.tags > 0) {
        double cpu = seconds(CLOCK_PROCESS_CPUTIME_ID), own = seconds(CLOCK_THREAD_CPUTIME_ID);
        start = seconds(CLOCK_MONOTONIC);
        load(&b);
        double wall = seconds(CLOCK_MONOTONIC) - start;
        query_all(&b, "while RocksDB compacts");
        double own_later = seconds(CLOCK_THREAD_CPUTIME_ID);
        settle(&b);
        double n = (double)b.tags / 1e6;
        double others = seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu - (own_later - own);
        printf("a tag: apply %.3f us, checkpoint %.3f us, compaction %.3f us of CPU; loaded in "
               "%.1f s\n",
               b.apply_s / n, b.checkpoint_s / n, others / n, wall);
        query_all(&b, "settled");
    }
    events_store_close(b.store);
    return 0;
}
