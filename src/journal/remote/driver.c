/* SPDX-License-Identifier: Apache-2.0 */
/* The table of drivers. A driver is a row here, a file beside this one, and a row of the table in
 * journal/README.md. */
#include "journal/driver.h"

#include <stdarg.h>
#include <stdio.h>

static const struct log_driver *const drivers[] = {&log_kafka, &log_rabbitmq, &log_redis, NULL};

const char log_no_driver[] =
    "no journal has this URL's scheme; there are local:, kafka://, amqp:// and redis://";

const struct log_driver *log_driver_find(struct bytes scheme) {
    for (const struct log_driver *const *d = drivers; *d; d++)
        for (const char *const *s = (*d)->schemes; *s; s++)
            if (bytes_equal(bytes_of_string(*s), scheme))
                return *d;
    return NULL;
}

void log_say(char why[LOG_WHY_MAX], const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(why, LOG_WHY_MAX, format, args);
    va_end(args);
}
