/* SPDX-License-Identifier: Apache-2.0 */
/* What a server says of itself, and of its replicas. */
#include "redis/durable.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

bool redis_reply_is(const redisReply *reply, const char *text) {
    return (reply->type == REDIS_REPLY_STRING || reply->type == REDIS_REPLY_STATUS) &&
           (!text || strcmp(reply->str, text) == 0);
}

/* ---- Settings ---- */

/* The value of one, in reply; NULL: it is not told. */
static int read_setting(struct redis_link *l, const char *name, redisReply **reply,
                        const char **ret_value) {
    int r = redis_link_command(
        l, (struct bytes[]){BYTES_LITERAL("CONFIG"), BYTES_LITERAL("GET"), bytes_of_string(name)},
        3, reply);
    *ret_value = NULL;
    if (r == REDIS_E_REFUSED) /* CONFIG is not for everybody */
        return 0;
    if (!r && (*reply)->elements == 2 && redis_reply_is((*reply)->element[1], NULL))
        *ret_value = (*reply)->element[1]->str;
    return r;
}

static bool is_weaker(const char *value, const char *wanted) {
    return *wanted >= '0' && *wanted <= '9' ? strtoul(value, NULL, 10) < strtoul(wanted, NULL, 10)
                                            : strcmp(value, wanted) != 0;
}

int redis_check_settings(struct redis_link *l, uint64_t replicas,
                         void (*tell)(void *context, const char *sentence), void *context) {
    char wanted_replicas[24], sentence[2 * REDIS_WHY_MAX];
    snprintf(wanted_replicas, sizeof wanted_replicas, "%" PRIu64, replicas);
    const struct {
        const char *name, *wanted, *otherwise;
    } settings[] = {
        {"appendonly", "yes", "what it has taken is lost when it stops"},
        {"appendfsync", "always", "what it has taken may be lost with the machine"},
        {"maxmemory-policy", "noeviction", "it may drop what it has taken when memory is short"},
        {"min-replicas-to-write", wanted_replicas, "a master that is cut off goes on writing"},
    };
    for (size_t i = 0; tell && i < ARRAY_LENGTH(settings); i++) {
        CLEANUP(redis_reply_cleanup) redisReply *reply = NULL;
        const char *value;
        int r = read_setting(l, settings[i].name, &reply, &value);
        if (r)
            return r;
        if (value && !is_weaker(value, settings[i].wanted))
            continue;
        if (value)
            snprintf(sentence, sizeof sentence, "%s has %s %.64s instead of %s: %s", l->peer,
                     settings[i].name, value, settings[i].wanted, settings[i].otherwise);
        else
            snprintf(sentence, sizeof sentence, "%s does not tell its %s, which should be %s",
                     l->peer, settings[i].name, settings[i].wanted);
        tell(context, sentence);
    }
    return 0;
}

/* ---- Replicas ---- */

int redis_wait_for_replicas(struct redis_link *l, uint64_t replicas) {
    CLEANUP(redis_reply_cleanup) redisReply *reply = NULL;
    char wanted[24], wait_ms[24];
    if (replicas == 0)
        return 0;
    snprintf(wanted, sizeof wanted, "%" PRIu64, replicas);
    snprintf(wait_ms, sizeof wait_ms, "%" PRIu64, redis_link_left_ms(l) * 3 / 4 + 1);
    int r = redis_link_command(
        l,
        (struct bytes[]){BYTES_LITERAL("WAIT"), bytes_of_string(wanted), bytes_of_string(wait_ms)},
        3, &reply);
    if (r)
        return r;
    if (reply->type != REDIS_REPLY_INTEGER)
        return redis_link_odd(l);
    if (reply->integer >= (long long)replicas)
        return 0;
    return redis_link_drop(l, "%s: only %lld of %s replicas have what was written", l->peer,
                           reply->integer, wanted);
}

/* ---- Owners ---- */

int redis_make_token(struct os *os, char ret_token[REDIS_TOKEN_SIZE]) {
    uint8_t chance[REDIS_TOKEN_SIZE / 2];
    int r = os_random(os, chance, sizeof chance);
    for (size_t i = 0; r == 0 && i < sizeof chance; i++)
        snprintf(ret_token + 2 * i, 3, "%02x", chance[i]);
    return error_fold(r);
}

int redis_make_identity(struct os *os, const char *prefix, char ret_identity[REDIS_IDENTITY_SIZE]) {
    char token[REDIS_TOKEN_SIZE];
    int r = redis_make_token(os, token);
    if (r)
        return error_trace(r);
    snprintf(ret_identity, REDIS_IDENTITY_SIZE, "%.128s/%.16s", prefix, token);
    return 0;
}
