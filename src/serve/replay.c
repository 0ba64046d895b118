/* SPDX-License-Identifier: Apache-2.0 */
/* The journal's replay into the stores at a start. */
#include "serve/internal.h"

#include <errno.h>

/* Log lines about a replay that takes longer than a second. */
struct replay {
    struct serve *serve;
    const struct serve_options *options;
    uint64_t told_ns;
    bool told;
};

static void replay_progress(void *context, lsn_t at, lsn_t end) {
    enum { TELL_NS = 1000000000 };
    struct replay *replay = context;
    struct serve *s = replay->serve;
    uint64_t now = os_monotonic_ns(s->os);
    if (replay->options->replaying)
        replay->options->replaying(replay->options->context, at, end);
    if (now - replay->told_ns < TELL_NS)
        return;
    replay->told_ns = now;
    replay->told = true;
    log_line(s->log, LOG_INFO, "replaying the journal", LOG_NUMBER("lsn", at),
             LOG_NUMBER("end", end));
}

/* Engines come back: how they are, health says meanwhile. A store that is full while who keeps its
 * data is away has room again after the next checkpoint. */
static bool will_go_on(const struct data *d, const struct data_store *store, int r) {
    enum { PAUSE_NS = 100000000 };
    bool elsewhere = (store->store == d->tasks && d->tasks_remote) ||
                     (d->events_redis && store->store == d->events_redis);
    if (r == WORK_E_DOWN && elsewhere) {
        os_sleep_ns(d->os, PAUSE_NS);
        return true;
    }
    return r == -EIO && d->journal_url[0];
}

static int replay_store(const struct data_store *store, struct replay *replay,
                        struct problem *problem) {
    int r;
    do
        r = work_catch_up(store->work, replay_progress, replay);
    while (will_go_on(replay->serve->data, store, r));
    if (r == WORK_E_DOWN) {
        struct work_status status;
        work_status(store->work, &status);
        return problem_say(problem, "the %s store cannot take the journal's records: %s",
                           store->ops->work->name, status.reason);
    }
    if (r)
        return problem_of_result(problem, "cannot replay the journal into", store->directory, r);
    return 0;
}

/* A cluster may be away: its lanes catch up whenever it is there. */
static int replay_points_of_cluster(struct data *d, struct replay *replay,
                                    struct problem *problem) {
    int r = points_store_replay_controls(d->points, d->journal, replay_progress, replay);
    return r ? problem_of_result(problem, "cannot replay the journal into",
                                 d->stores[DATA_POINTS].directory, r)
             : 0;
}

int serve_replay(struct serve *s, const struct serve_options *options, struct problem *problem) {
    struct replay replay = {.serve = s, .options = options, .told_ns = os_monotonic_ns(s->os)};
    uint64_t begin = replay.told_ns;
    for (int i = 0; i < DATA_STORES; i++) {
        int r = i == DATA_POINTS && s->data->cluster
                    ? replay_points_of_cluster(s->data, &replay, problem)
                    : replay_store(&s->data->stores[i], &replay, problem);
        if (r)
            return r;
    }
    if (replay.told)
        log_line(s->log, LOG_INFO, "replayed the journal",
                 LOG_NUMBER("lsn", journal_durable(s->data->journal)),
                 LOG_NUMBER("ms", (os_monotonic_ns(s->os) - begin) / 1000000));
    return 0;
}
