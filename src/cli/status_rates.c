/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What happened between two readings.
 */
#include "cli/status.h"

#include <math.h>

static const struct status_kind *find_kind(const struct status_sample *s, const char *name) {
    for (size_t i = 0; i < s->n_kinds; i++)
        if (strcmp(s->kinds[i].name, name) == 0)
            return &s->kinds[i];
    return NULL;
}

bool status_restarted(const struct status_sample *before, const struct status_sample *now) {
    return now->started != before->started;
}

static double count_before(const struct status_histogram *before, size_t i, double bound) {
    if (i < before->n && before->bounds[i] == bound)
        return before->counts[i];
    return 0;
}

double status_quantile(const struct status_histogram *before, const struct status_histogram *now,
                       double q) {
    double last = now->n ? now->bounds[now->n - 1] : 0;
    double total = now->n ? now->counts[now->n - 1] - count_before(before, now->n - 1, last) : 0;
    double below = 0; /* counted up to the bucket, and where it starts */
    double start = 0;
    if (total <= 0)
        return -1;
    for (size_t i = 0; i < now->n; i++) {
        double bound = now->bounds[i];
        double count = now->counts[i] - count_before(before, i, bound);
        if (count >= q * total && count > below)
            return isinf(bound) ? start
                                : start + (bound - start) * (q * total - below) / (count - below);
        below = count;
        start = bound;
    }
    return start;
}

void status_rates_unknown(struct status_rates *ret_rates) {
    *ret_rates = (struct status_rates){.requests = -1,
                                       .errors = -1,
                                       .latency_p50 = -1,
                                       .latency_p99 = -1,
                                       .sync_p50 = -1,
                                       .sync_p99 = -1};
    for (size_t i = 0; i < STATUS_KINDS_MAX; i++)
        ret_rates->appended[i] = ret_rates->applied[i] = -1;
}

void status_rates(const struct status_sample *before, const struct status_sample *now,
                  struct status_rates *ret_rates) {
    double seconds = (double)(now->at_ns - before->at_ns) * 1e-9;
    status_rates_unknown(ret_rates);
    if (seconds <= 0)
        return;
    ret_rates->seconds = seconds;
    ret_rates->requests = (now->requests - before->requests) / seconds;
    ret_rates->errors = (now->errors - before->errors) / seconds;
    ret_rates->latency_p50 = status_quantile(&before->latency, &now->latency, 0.5);
    ret_rates->latency_p99 = status_quantile(&before->latency, &now->latency, 0.99);
    ret_rates->sync_p50 = status_quantile(&before->sync, &now->sync, 0.5);
    ret_rates->sync_p99 = status_quantile(&before->sync, &now->sync, 0.99);
    for (size_t i = 0; i < now->n_kinds; i++) {
        const struct status_kind *kind = &now->kinds[i];
        const struct status_kind *old = find_kind(before, kind->name);
        ret_rates->appended[i] = (kind->appended - (old ? old->appended : 0)) / seconds;
        ret_rates->applied[i] = (kind->applied - (old ? old->applied : 0)) / seconds;
    }
}

void status_remember(struct status_history *h, double value) {
    if (h->n == STATUS_HISTORY) {
        memmove(h->values, h->values + 1, (STATUS_HISTORY - 1) * sizeof h->values[0]);
        h->n--;
    }
    h->values[h->n++] = value;
}
