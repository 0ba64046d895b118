/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The mark of a shared journal on RabbitMQ: the durable exchange `<log>-store`, whose alternate
 * exchange is `<log>-store:TEXT`. Nothing is published to it, and there is no exchange of that
 * other name; but it begins as all names of the journal do, so that who may use those may name it.
 *
 * An exchange is nothing but what was declared, the same on all nodes of a cluster: it has no
 * leader, and no message that could be dropped. Who declares it with another alternate exchange is
 * refused, so the first stays; what that is stands in the refusal alone, and may be cut there.
 */
#include "journal/remote/rabbitmq_shared.h"

#include <stdio.h>

enum { ALTERNATE_MAX = RABBITMQ_NAME_MAX + JOURNAL_MARK_MAX };
static const char argument[] = "alternate-exchange";

enum { REFUSAL_MAX = 256 }; /* AMQP has no longer one */

/* alternate NULL: it is only looked for. refusal: what the broker says of one that is there with
 * another, else "". */
static int declare(struct link *l, const char *name, const char *alternate,
                   char refusal[REFUSAL_MAX]) {
    bool passive = !alternate, internal = true;
    amqp_table_entry_t entry = {
        amqp_cstring_bytes(argument),
        {AMQP_FIELD_KIND_UTF8, {.bytes = amqp_cstring_bytes(alternate ? alternate : "")}}};
    amqp_table_t arguments = {passive ? 0 : 1, &entry};
    amqp_exchange_declare(l->state, LINK_CHANNEL, amqp_cstring_bytes(name),
                          amqp_cstring_bytes("fanout"), passive, 1, 0, internal, arguments);
    amqp_rpc_reply_t reply = amqp_get_rpc_reply(l->state);
    int r = link_check(l, reply, NULL);
    refusal[0] = '\0';
    if (r > 0 && l->code == LINK_CODE_PRECONDITION_FAILED &&
        reply.reply.id == AMQP_CHANNEL_CLOSE_METHOD) {
        const amqp_channel_close_t *close = reply.reply.decoded;
        snprintf(refusal, REFUSAL_MAX, "%.*s", (int)close->reply_text.len,
                 (const char *)close->reply_text.bytes);
    }
    if (!strstr(refusal, argument)) /* it is none of ours */
        refusal[0] = '\0';
    return r;
}

/* What the refusal says that there is. */
static void take_text(const char *refusal, const char *name, struct journal_mark *mark) {
    char before[RABBITMQ_NAME_MAX + 32];
    snprintf(before, sizeof before, "but current is '%s:", name);
    const char *begin = strstr(refusal, before);
    const char *end = begin ? strchr(begin + strlen(before), '\'') : NULL;
    if (!end)
        return;
    begin += strlen(before);
    snprintf(mark->text, sizeof mark->text, "%.*s", (int)(end - begin), begin);
}

/* Of one that is there only the refusal of another says what it is. */
static int look(struct link *l, const char *name, struct journal_mark *mark) {
    char refusal[REFUSAL_MAX];
    int r = declare(l, name, NULL, refusal);
    if (r > 0 && l->code == LINK_CODE_NOT_FOUND)
        return 0;
    if (!r)
        r = declare(l, name, name, refusal);
    mark->there = refusal[0] != '\0';
    take_text(refusal, name, mark);
    return mark->there ? 0 : r;
}

/* Its refusal may be too long, as it repeats the text: so it is looked for again. */
static int leave(struct link *l, const char *name, const char *text, struct journal_mark *mark) {
    char alternate[ALTERNATE_MAX], refusal[REFUSAL_MAX];
    snprintf(alternate, sizeof alternate, "%s:%s", name, text);
    int r = declare(l, name, alternate, refusal);
    mark->ours = mark->there = r == 0;
    if (mark->ours)
        snprintf(mark->text, sizeof mark->text, "%s", text);
    if (!refusal[0])
        return r;
    r = link_reopen(l);
    return r ? r : look(l, name, mark);
}

int rabbitmq_mark(struct os *os, const struct log_options *options, const char *text,
                  struct journal_mark *ret_mark, char why[LOG_WHY_MAX]) {
    struct rabbitmq_streams streams;
    struct link link;
    char name[RABBITMQ_NAME_MAX];
    uint64_t deadline_ns = os_monotonic_ns(os) + options->timeout_ms * UINT64_C(1000000);
    int r = rabbitmq_streams_init(&streams, options, why);
    if (r)
        return r;
    /* Streams and queues of one name are two journals. */
    snprintf(name, sizeof name, "%.150s-%sstore", streams.log, streams.queues ? "q-" : "");
    snprintf(ret_mark->place, sizeof ret_mark->place, "the exchange %s", name);
    link_init(&link, os, options->url, options->timeout_ms);
    r = link_connect(&link, RABBITMQ_HEARTBEAT_S, deadline_ns);
    if (!r)
        r = text ? leave(&link, name, text, ret_mark) : look(&link, name, ret_mark);
    if (r > 0)
        log_say(why, "%s", link.why);
    link_drop(&link, r ? 0 : deadline_ns);
    return error_trace(r);
}
