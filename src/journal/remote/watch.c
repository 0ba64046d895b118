/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A watch has a connection of its own, made by the first question, and anew after one that failed.
 */
#include "journal/watch.h"

#include "journal/remote/shared.h"

#include <errno.h>
#include <stdlib.h>

struct group_watch {
    struct os *os;
    struct log_options options;
    struct shared_watch *watch; /* NULL: not connected */
    unsigned partitions;
};

int group_watch_new(struct os *os, const struct service_url *url, const char *name,
                    uint64_t timeout_ms, struct group_watch **ret_watch) {
    const struct shared_driver *driver = shared_driver_find(url);
    *ret_watch = NULL;
    if (!driver || !driver->watch)
        return 0;
    struct group_watch *w = calloc(1, sizeof *w);
    if (!w)
        return error_origin(-ENOMEM);
    *w = (struct group_watch){.os = os,
                              .options = {.url = url, .name = name, .timeout_ms = timeout_ms},
                              .partitions = journal_url_partitions(url)};
    *ret_watch = w;
    return 0;
}

static void hang_up(struct group_watch *w) {
    if (w->watch)
        w->watch->ops->close(w->watch);
    w->watch = NULL;
}

struct group_watch *group_watch_free(struct group_watch *w) {
    if (!w)
        return NULL;
    hang_up(w);
    free(w);
    return NULL;
}

int group_watch_count(struct group_watch *w, const lsn_t *positions, uint64_t *ret_messages) {
    uint64_t offsets[GROUP_PARTITIONS_MAX];
    for (unsigned p = 0; p < w->partitions; p++)
        offsets[p] = positions[p] ? shared_offset(positions[p]) + 1 : 0;
    const struct shared_watch_ops *ops = shared_driver_find(w->options.url)->watch;
    int r = w->watch ? 0 : ops->open(w->os, &w->options, &w->watch);
    if (!r)
        r = ops->count(w->watch, offsets, ret_messages);
    if (r)
        hang_up(w);
    return r > 0 ? JOURNAL_E_UNAVAILABLE : error_trace(r);
}
