/* SPDX-License-Identifier: Apache-2.0 */
/* The mark of a shared journal: its driver asks for it, or leaves it. */
#include "journal/mark.h"

#include "journal/remote/shared.h"

#include <assert.h>
#include <stdio.h>

enum { TIMEOUT_MS = 5000 };

int journal_mark(struct os *os, const struct journal_mark_options *options, const char *text,
                 struct journal_mark *ret_mark, char why[GROUP_WHY_MAX]) {
    const struct shared_driver *driver = shared_driver_find(options->url);
    const struct log_options log = {.url = options->url,
                                    .name = options->name,
                                    .timeout_ms =
                                        options->timeout_ms ? options->timeout_ms : TIMEOUT_MS};
    struct journal_mark mark = {0};
    char sentence[LOG_WHY_MAX] = "";
    assert(driver && "journal_url_is_shared");
    assert(!text || (*text && strlen(text) < JOURNAL_MARK_MAX));
    int r = driver->mark(os, &log, text, &mark, sentence);
    if (r > 0)
        snprintf(why, GROUP_WHY_MAX, "%s", sentence);
    if (r)
        return r < 0                ? error_trace(r)
               : r == LOG_E_REFUSED ? JOURNAL_E_REFUSED
                                    : JOURNAL_E_UNAVAILABLE;
    *ret_mark = mark;
    return 0;
}
