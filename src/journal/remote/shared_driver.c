/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of drivers of shared journals, and what the URL of one says. A driver is a row here, a
 * file or two beside this one, and a row of the table in journal/README.md.
 */
#include "journal/remote/shared.h"

#include <assert.h>
#include <stdio.h>

#define PREFIX "millrace-" /* unless the URL has another */

/* Of one scheme, the one that `queues` tells from the others is before the one that is without. */
static const struct shared_driver *const drivers[] = {&shared_kafka, &shared_rabbitmq_queues,
                                                      &shared_rabbitmq, &shared_redis, NULL};

static bool has_scheme(const struct shared_driver *d, const char *scheme) {
    for (const char *const *s = d->schemes; *s; s++)
        if (strcmp(*s, scheme) == 0)
            return true;
    return false;
}

const struct shared_driver *shared_driver_find(const struct service_url *url) {
    const char *queues = service_url_parameter(url, "queues");
    for (const struct shared_driver *const *d = drivers; *d; d++)
        if (has_scheme(*d, url->scheme) &&
            (!(*d)->queues || (queues && strcmp(queues, (*d)->queues) == 0)))
            return *d;
    return NULL;
}

bool journal_url_is_shared(const struct service_url *url) {
    return shared_driver_find(url) && service_url_parameter(url, "partitions");
}

bool journal_url_keeps_positions(const struct service_url *url) {
    const struct shared_driver *driver = shared_driver_find(url);
    return driver && driver->member->committed && service_url_parameter(url, "partitions");
}

unsigned journal_url_partitions(const struct service_url *url) {
    uint64_t n = 0;
    bool right = service_url_parameter_number(url, "partitions", 1, GROUP_PARTITIONS_MAX, &n);
    return right && journal_url_is_shared(url) ? (unsigned)n : 0;
}

void journal_url_source(const struct service_url *url, const char *name,
                        char out[GROUP_SOURCE_MAX]) {
    const struct shared_driver *driver = shared_driver_find(url);
    assert(driver && "journal_url_is_shared");
    const char *prefix = service_url_parameter(url, driver->prefix);
    int size =
        snprintf(out, GROUP_SOURCE_MAX, "%s:%s%s", driver->name, prefix ? prefix : PREFIX, name);
    if (size < 0 || size >= GROUP_SOURCE_MAX)
        out[0] = '\0';
}

int shared_check_url(const struct service_url *url, char why[LOG_WHY_MAX]) {
    const struct shared_driver *driver = shared_driver_find(url);
    assert(driver && "journal_url_is_shared");
    const char *unknown = service_url_parameter_unknown(url, driver->parameters);
    for (const struct shared_driver *const *d = drivers; unknown && *d; d++)
        if (has_scheme(*d, url->scheme) && (*d)->queues && strcmp(unknown, "queues") == 0)
            return log_fail(why, LOG_E_REFUSED, "queues is %s, or left out, in the journal's URL",
                            (*d)->queues);
    if (unknown)
        return log_fail(why, LOG_E_REFUSED, "the journal's URL has no parameter called %.100s",
                        unknown);
    return journal_url_partitions(url)
               ? 0
               : log_fail(why, LOG_E_REFUSED,
                          "partitions is a number from 1 to %d in the journal's URL",
                          GROUP_PARTITIONS_MAX);
}

static_assert((int)GROUP_WHY_MAX >= (int)LOG_WHY_MAX, "sentences of drivers fit");

int journal_url_check(const struct service_url *url, char why[GROUP_WHY_MAX]) {
    const struct log_driver *driver = log_driver_find(bytes_of_string(url->scheme));
    bool shared = journal_url_is_shared(url);
    int r = shared    ? shared_check_url(url, why)
            : !driver ? log_fail(why, LOG_E_REFUSED, "%s", log_no_driver)
                      : 0;
    if (!r)
        r = shared ? shared_driver_find(url)->check(url, why) : driver->check(url, why);
    return r > 0 ? JOURNAL_E_REFUSED : error_trace(r);
}
