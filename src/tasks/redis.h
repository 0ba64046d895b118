/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Redis as who keeps the tasks (remote.h): redis:// and redis+sentinel://, as redis/link.h says,
 * with the parameters prefix, replicas, sentinel-user, sentinel-password. The URL is the caller's
 * to keep as long as the remote.
 */
#ifndef MILLRACE_TASKS_REDIS_H
#define MILLRACE_TASKS_REDIS_H

#include "base/service_url.h"
#include "os/os.h"
#include "tasks/remote.h"

struct tasks_redis_options {
    const struct service_url *url;
    uint64_t timeout_ms; /* of one call; 0: 5 s */
    /* Told, while it becomes the owner, of settings of the server that are weaker than they should
     * be; may be NULL. */
    void (*tell)(void *context, const char *sentence);
    void *context;
};

/* False, with the sentence in why: no tasks can be kept there. */
bool tasks_redis_check_url(const struct service_url *url, char why[TASKS_REMOTE_WHY_MAX]);
/* Connects to nothing yet. The URL has been checked. -ENOMEM. */
int tasks_redis_new(struct os *os, const struct tasks_redis_options *options,
                    struct tasks_remote **ret_remote) MUST_USE;
/* Takes NULL. Returns NULL. */
struct tasks_remote *tasks_redis_free(struct tasks_remote *r);

#endif
