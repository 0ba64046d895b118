/* SPDX-License-Identifier: Apache-2.0 */
/* Seats and locks: see rabbitmq_seats.h. */
#include "journal/remote/rabbitmq_seats.h"

#include <stdio.h>

#define MS_NS UINT64_C(1000000)
enum {
    SHARE_MS = 250, /* between two looks at who there is */
    RETRY_MS = 500, /* between two tries to connect */
    CLOSE_MS = 1000,
    CHANNEL_OF_CONSUMER = 2, /* a lock that is taken costs the channel it was asked on */
};

static uint64_t deadline_after(const struct rabbitmq_seats *s, uint64_t ms) {
    return os_monotonic_ns(s->os) + ms * MS_NS;
}

static bool is_time(struct rabbitmq_seats *s, uint64_t ms) {
    uint64_t now = os_monotonic_ns(s->os);
    if (s->looked_ns && now - s->looked_ns < ms * MS_NS)
        return false;
    s->looked_ns = now;
    return true;
}

/* ---- locks ---- */

void rabbitmq_seats_renew(struct rabbitmq_seats *s, unsigned p) {
    s->member->generation[p] = ++s->given;
}

static void lose_partition(struct rabbitmq_seats *s, unsigned p) {
    if (!s->has[p])
        return;
    s->take(s->member, p);
    s->member->generation[p] = 0;
    s->has[p] = false;
}

static void end(struct rabbitmq_seats *s, uint64_t deadline_ns) {
    for (unsigned p = 0; p < s->streams.n; p++)
        lose_partition(s, p);
    s->seat = -1;
    link_drop(&s->link, deadline_ns);
}

void rabbitmq_seats_leave(struct rabbitmq_seats *s) {
    end(s, deadline_after(s, CLOSE_MS));
}

void rabbitmq_seats_lose(struct rabbitmq_seats *s) {
    end(s, 0);
    s->member->reachable = false;
    snprintf(s->member->why, sizeof s->member->why, "%s", s->link.why);
}

/* Streams and queues of one name are two journals. */
static const char *kind(const struct rabbitmq_seats *s) {
    return s->streams.queues ? "q-" : "";
}

static amqp_bytes_t name_of(const struct rabbitmq_seats *s, const char *what, unsigned number,
                            char out[RABBITMQ_NAME_MAX]) {
    char whole[24];
    snprintf(whole, sizeof whole, "%s%s", kind(s), what);
    return amqp_cstring_bytes(rabbitmq_name(&s->streams, whole, number, out));
}

/* LOG_E_END: another has it. */
static int take_lock(struct rabbitmq_seats *s, const char *what, unsigned number) {
    char name[RABBITMQ_NAME_MAX];
    struct link *l = &s->link;
    amqp_queue_declare(l->state, LINK_CHANNEL, name_of(s, what, number, name), 0, 0, 1, 0,
                       amqp_empty_table);
    int r = link_check(l, amqp_get_rpc_reply(l->state), "taking a lock");
    if (r <= 0 || l->code != LINK_CODE_LOCKED)
        return r;
    r = link_reopen(l);
    return r ? r : LOG_E_END;
}

static int free_lock(struct rabbitmq_seats *s, const char *what, unsigned number) {
    char name[RABBITMQ_NAME_MAX];
    struct link *l = &s->link;
    amqp_queue_delete(l->state, LINK_CHANNEL, name_of(s, what, number, name), 0, 0);
    return link_check(l, amqp_get_rpc_reply(l->state), "freeing a lock");
}

/* The queue whose consumers are counted; it goes with the last of them. */
static amqp_bytes_t workers_of(const struct rabbitmq_seats *s, char out[RABBITMQ_NAME_MAX]) {
    snprintf(out, RABBITMQ_NAME_MAX, "%.150s-%sworkers", s->streams.log, kind(s));
    return amqp_cstring_bytes(out);
}

static int declare_members(struct rabbitmq_seats *s, bool passive) {
    char name[RABBITMQ_NAME_MAX];
    struct link *l = &s->link;
    const amqp_queue_declare_ok_t *ok = amqp_queue_declare(
        l->state, LINK_CHANNEL, workers_of(s, name), passive, 0, 0, 1, amqp_empty_table);
    int r = link_check(l, amqp_get_rpc_reply(l->state), "counting the workers");
    if (r == 0)
        s->members = ok->consumer_count;
    return r;
}

static int be_counted(struct rabbitmq_seats *s) {
    char name[RABBITMQ_NAME_MAX];
    struct link *l = &s->link;
    int r = declare_members(s, false);
    if (r)
        return r;
    amqp_channel_open(l->state, CHANNEL_OF_CONSUMER);
    r = link_check(l, amqp_get_rpc_reply(l->state), "opening a channel");
    if (r)
        return r;
    amqp_basic_consume(l->state, CHANNEL_OF_CONSUMER, workers_of(s, name), amqp_empty_bytes, 0, 1,
                       0, amqp_empty_table);
    return link_check(l, amqp_get_rpc_reply(l->state), "joining the workers");
}

static int connect_seats(struct rabbitmq_seats *s) {
    int r = link_connect(&s->link, RABBITMQ_HEARTBEAT_S, deadline_after(s, s->timeout_ms));
    return r ? r : be_counted(s);
}

int rabbitmq_seats_join(struct rabbitmq_seats *s, struct os *os, const struct log_options *options,
                        struct shared_member *member,
                        void (*take)(struct shared_member *member, unsigned partition)) {
    *s = (struct rabbitmq_seats){
        .member = member, .os = os, .timeout_ms = options->timeout_ms, .seat = -1, .take = take};
    link_init(&s->link, os, options->url, options->timeout_ms);
    int r = rabbitmq_streams_init(&s->streams, options, s->link.why);
    if (r == 0)
        r = connect_seats(s);
    if (r)
        rabbitmq_seats_lose(s);
    return r;
}

/* ---- sharing ---- */

/* The lowest that is free, if the one it has is too high, or it has none. */
static int take_seat(struct rabbitmq_seats *s) {
    unsigned below = s->seat < 0 ? GROUP_PARTITIONS_MAX : (unsigned)s->seat;
    if (s->seat >= 0 && below < s->members)
        return 0;
    for (unsigned k = 0; k < below; k++) {
        int r = take_lock(s, "worker-", k);
        if (r == LOG_E_END)
            continue;
        if (r == 0 && s->seat >= 0)
            r = free_lock(s, "worker-", below);
        if (r == 0)
            s->seat = (int)k;
        return r;
    }
    return 0;
}

static int take_or_give(struct rabbitmq_seats *s, unsigned p) {
    bool wanted = s->seat >= 0 && s->members > 0 && p % s->members == (unsigned)s->seat;
    if (s->has[p] == wanted)
        return 0;
    if (s->has[p]) {
        lose_partition(s, p);
        return free_lock(s, "reader-", p);
    }
    int r = take_lock(s, "reader-", p);
    if (r == 0) {
        s->has[p] = true;
        rabbitmq_seats_renew(s, p);
    }
    return r == LOG_E_END ? 0 : r;
}

int rabbitmq_seats_breathe(struct rabbitmq_seats *s) {
    amqp_frame_t frame;
    int r = 0;
    while (r == 0 && s->link.state) {
        r = link_wait(&s->link, 0, &frame);
        if (r == 0 && frame.frame_type == AMQP_FRAME_METHOD &&
            frame.payload.method.id == AMQP_BASIC_CANCEL_METHOD)
            r = log_fail(s->link.why, LOG_E_UNAVAILABLE, "the queue of the workers is gone");
        amqp_maybe_release_buffers(s->link.state);
    }
    if (r && r != LOG_E_END)
        rabbitmq_seats_lose(s);
    return r == LOG_E_END ? 0 : r;
}

static int share(struct rabbitmq_seats *s) {
    int r = link_set_deadline(&s->link, deadline_after(s, s->timeout_ms));
    if (r == 0)
        r = declare_members(s, true);
    if (r == 0)
        r = take_seat(s);
    for (unsigned p = 0; r == 0 && p < s->streams.n; p++)
        r = take_or_give(s, p);
    return r;
}

void rabbitmq_seats_look(struct rabbitmq_seats *s) {
    if (!s->link.state && !is_time(s, RETRY_MS))
        return;
    int r = s->link.state ? rabbitmq_seats_breathe(s) : connect_seats(s);
    if (r == 0 && is_time(s, SHARE_MS))
        r = share(s);
    if (r)
        rabbitmq_seats_lose(s);
    else
        s->member->reachable = true;
}
