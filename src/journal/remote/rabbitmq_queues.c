/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A member of the group that reads a shared journal on RabbitMQ's quorum queues.
 * (rabbitmq_writer.c writes it: durable messages with an id each, confirms in a window.)
 *
 * A queue knows no offsets. A message is the queue's until it is acknowledged, which is once the
 * store has persisted it, and comes again when its reader is gone. So the store numbers what comes
 * (journal/group.h), and acknowledgements are cumulative.
 *
 * Each partition that is read has a connection of its own, which is a **session**:
 *
 *   sought ──the store begins a session──▶ connected, subscribed ──messages──▶ numbered ─▶ given
 *     ▲                                        │                                 on in order
 *     └──── 500 ms ──── the connection is lost ┘                                     │
 *                                          acknowledged ◀── the store has them ◀─────┘
 *
 * What this rests on, as RabbitMQ 3.10 does it:
 *
 * - The store's session begins before the subscription. So what a member has in its hands and may
 *   still number has been nobody else's since.
 * - A session ends by the loss of its connection, and in no other way: without a word. Then the
 *   queue takes back what was not acknowledged, in its order and before anything new, and gives it
 *   to the next single active consumer, in one step. Whoever cancels a consumer, or closes a
 *   channel, which does that too, lets the next one have what is new first, and what he had later:
 *   so messages would be numbered, and applied, in another order than they were written in.
 * - What is not acknowledged is always a part of the newest few that were numbered, as the queue
 *   gives PREFETCH of them out at a time.
 *
 * Should messages come in another order all the same, those that have a number wait for the ones
 * before them: until nothing comes any more. Then the group has it all read again, and passes what
 * is missing if it is so still. Each session is under way only for one member at a time by the
 * seats' locks (rabbitmq_seats.h), but it is the store's session that keeps one out who slept.
 */
#include "base/hash.h"
#include "journal/remote/rabbitmq_seats.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define MS_NS UINT64_C(1000000)
enum {
/* Never another: who takes fewer than the one before may have them in another order. */
#ifdef MILLRACE_TINY
    PREFETCH = 4,
#else
    PREFETCH = 64,
#endif
    RETRY_MS = 500,            /* behind a session before the next: what it had must be back */
    QUIET_MS = 250,            /* nothing came for so long: nothing that is missing is on its way */
    NUMBER_MS = 200,           /* between two tries to have messages numbered */
    COUNT_MS = 1000,           /* between two queues whose messages are counted */
    LOOK_MS = 1000,            /* for one look at all */
    ROUND_MS = 100,            /* the longest wait between two looks at everything */
    KEPT_BYTES_MAX = 16 << 20, /* of messages that nobody wanted yet: then few more are taken in */
};
static_assert((int)PREFETCH <= (int)GROUP_NUMBERS_MAX && (int)GROUP_NUMBERS_KEPT >= 16 * PREFETCH,
              "a store numbers all that is under way, and remembers many more");

/* That came, and is not acknowledged. */
struct message {
    uint64_t tag;
    uint64_t number;
    bool numbered;
    bool given; /* on to the group, or it was in an earlier session */
    void *body; /* ours, unless it was given on */
    size_t size;
    char id[RABBITMQ_ID_MAX]; /* with a NUL */
};

struct session {
    struct link link;
    bool reading, paused;
    bool failing;                      /* it is to be read, and cannot be */
    bool removed;                      /* the queue is not there */
    uint64_t number;                   /* of the session, the store's */
    uint64_t ended_ns, came_ns;        /* when the last session ended, when the last message came */
    uint64_t asked_ns;                 /* when the store could not number */
    uint64_t next;                     /* the number to be given on */
    uint64_t done;                     /* all before this one are persisted */
    uint64_t top;                      /* above the numbers that were seen */
    uint64_t ready;                    /* messages that the queue had when they were last counted */
    struct message messages[PREFETCH]; /* in the order in which they came */
    unsigned first, n;
    /* The message that is coming in. */
    struct message coming;
    struct buffer body;
    uint64_t body_size;
    bool has_header;
};

struct member {
    struct shared_member member; /* first */
    struct os *os;
    uint64_t timeout_ms;
    struct rabbitmq_seats seats;
    unsigned turn, giving; /* the partition that is looked at next; and that is given of */
    unsigned counted;
    uint64_t counted_ns;
    size_t kept_bytes;
    struct session sessions[GROUP_PARTITIONS_MAX];
};

static struct member *member_of(struct shared_member *m) {
    return (struct member *)m;
}

static uint64_t deadline_after(const struct member *m, uint64_t ms) {
    return os_monotonic_ns(m->os) + ms * MS_NS;
}

static bool is_past(const struct member *m, uint64_t since_ns, uint64_t ms) {
    return since_ns == 0 || os_monotonic_ns(m->os) - since_ns >= ms * MS_NS;
}

/* ---- messages of a session ---- */

static struct message *message_at(struct session *s, unsigned i) {
    return &s->messages[(s->first + i) % PREFETCH];
}

static void drop_body(struct member *m, struct message *message) {
    if (message->body)
        m->kept_bytes -= message->size;
    free(message->body);
    message->body = NULL;
}

/* By the loss of its connection alone. What it had comes again. */
static void end_session(struct member *m, struct session *s) {
    if (s->link.state)
        s->ended_ns = os_monotonic_ns(m->os);
    link_drop(&s->link, 0);
    for (unsigned i = 0; i < s->n; i++)
        drop_body(m, message_at(s, i));
    s->n = s->first = 0;
    s->has_header = false;
}

/* All before `done` that came first. */
static int acknowledge(struct member *m, struct session *s) {
    uint64_t tag = 0;
    while (s->n > 0 && message_at(s, 0)->numbered && message_at(s, 0)->number < s->done) {
        tag = message_at(s, 0)->tag;
        drop_body(m, message_at(s, 0));
        s->first = (s->first + 1) % PREFETCH;
        s->n--;
    }
    return tag == 0
               ? 0
               : link_check_status(&s->link, amqp_basic_ack(s->link.state, LINK_CHANNEL, tag, 1),
                                   "acknowledging");
}

/* ---- taking in ---- */

/* What is none of ours has no id of its own: it is known by what it is. */
static void note_id(struct session *s, const amqp_basic_properties_t *properties) {
    amqp_bytes_t id = properties->message_id;
    bool has = properties->_flags & AMQP_BASIC_MESSAGE_ID_FLAG && id.len > 0;
    snprintf(s->coming.id, sizeof s->coming.id, "%.*s",
             has && id.len < RABBITMQ_ID_MAX ? (int)id.len : 0, has ? (const char *)id.bytes : "");
}

static int end_of_message(struct member *m, struct session *s) {
    struct message *message = &s->coming;
    s->has_header = false;
    if (s->n == PREFETCH)
        return log_fail(s->link.why, LOG_E_UNAVAILABLE, "%s sends more than was asked for",
                        s->link.peer);
    message->size = s->body.size;
    message->body = malloc(message->size + 1); /* not of nothing */
    if (!message->body)
        return error_origin(-ENOMEM);
    if (message->size)
        memcpy(message->body, s->body.data, message->size);
    if (!message->id[0])
        snprintf(message->id, sizeof message->id, "strange-%016" PRIx64,
                 hash64(message->body, message->size));
    m->kept_bytes += message->size;
    s->came_ns = os_monotonic_ns(m->os);
    *message_at(s, s->n++) = *message;
    return 0;
}

/* Who ends our consumer may have removed the queue: that is seen by counting it, at once. */
static int take_method(struct member *m, struct session *s, const amqp_method_t *method) {
    if (method->id == AMQP_BASIC_DELIVER_METHOD) {
        const amqp_basic_deliver_t *deliver = method->decoded;
        s->coming = (struct message){.tag = deliver->delivery_tag};
    }
    if (method->id != AMQP_BASIC_CANCEL_METHOD)
        return 0;
    m->counted = (unsigned)(s - m->sessions) + m->seats.streams.n - 1;
    m->counted_ns = 0;
    return log_fail(s->link.why, LOG_E_UNAVAILABLE, "the queue cannot be read now");
}

static int take_frame(struct member *m, struct session *s, const amqp_frame_t *frame) {
    if (frame->frame_type == AMQP_FRAME_METHOD)
        return take_method(m, s, &frame->payload.method);
    if (frame->frame_type == AMQP_FRAME_HEADER) {
        note_id(s, frame->payload.properties.decoded);
        s->has_header = true;
        s->body_size = frame->payload.properties.body_size;
        buffer_clear(&s->body);
    } else if (frame->frame_type == AMQP_FRAME_BODY && s->has_header) {
        buffer_append(&s->body, frame->payload.body_fragment.bytes,
                      frame->payload.body_fragment.len);
    }
    int r = buffer_check(&s->body);
    return r || !s->has_header || s->body.size < s->body_size ? r : end_of_message(m, s);
}

/* One that is not numbered yet may be it. */
static bool has_to_give(struct session *s) {
    for (unsigned i = 0; i < s->n; i++)
        if (!message_at(s, i)->numbered || message_at(s, i)->number == s->next)
            return true;
    return false;
}

/* While much is kept, only what something waits for is taken in. */
static bool has_room(const struct member *m, struct session *s) {
    return m->kept_bytes < KEPT_BYTES_MAX || s->n == 0 || (!s->paused && !has_to_give(s));
}

static int take_frames(struct member *m, struct session *s) {
    amqp_frame_t frame;
    int r = 0;
    while (r == 0 && has_room(m, s)) {
        r = link_wait(&s->link, 0, &frame);
        if (r == 0)
            r = take_frame(m, s, &frame);
        amqp_maybe_release_buffers(s->link.state);
    }
    return r == LOG_E_END ? 0 : r;
}

/* ---- numbers ---- */

/* Those that came last. */
static unsigned count_unnumbered(struct session *s) {
    unsigned n = 0;
    while (n < s->n && !message_at(s, s->n - 1 - n)->numbered)
        n++;
    return n;
}

static void take_numbers(struct session *s, const uint64_t *numbers, unsigned n) {
    for (unsigned i = 0; i < n; i++) {
        struct message *message = message_at(s, s->n - n + i);
        message->number = numbers[i];
        message->numbered = true;
        message->given = numbers[i] < s->next;
        s->top = numbers[i] >= s->top ? numbers[i] + 1 : s->top;
    }
}

/* LOG_E_END: the session is over, by another that began. */
static int have_numbered(struct member *m, struct session *s, unsigned n) {
    struct bytes ids[PREFETCH];
    uint64_t offsets[PREFETCH];
    struct group_numbers numbers = {.session = s->number, .ids = ids, .n = n, .offsets = offsets};
    for (unsigned i = 0; i < n; i++)
        ids[i] = bytes_of_string(message_at(s, s->n - n + i)->id);
    int r = m->member.number(m->member.context, (unsigned)(s - m->sessions), &numbers);
    if (r == 0)
        take_numbers(s, offsets, n);
    return r == JOURNAL_E_END ? LOG_E_END : r > 0 ? LOG_E_UNAVAILABLE : r;
}

static int number_new(struct member *m, struct session *s) {
    unsigned n = count_unnumbered(s);
    if (n == 0 || !is_past(m, s->asked_ns, NUMBER_MS))
        return 0;
    int r = have_numbered(m, s, n);
    s->asked_ns = r == LOG_E_UNAVAILABLE ? os_monotonic_ns(m->os) : 0;
    if (r == LOG_E_UNAVAILABLE)
        return 0;
    return r ? r : acknowledge(m, s);
}

/* ---- sessions ---- */

/* What was not read of it is lost. Nothing, where nothing is known to have been in it. */
static void note_removed(struct member *m, struct session *s) {
    if (!s->removed && (s->next > 0 || s->ready > 0)) {
        m->member.lost += s->ready + (s->top > s->next ? s->top - s->next : 0);
        rabbitmq_warn_removed(&m->seats.streams, (unsigned)(s - m->sessions));
    }
    s->removed = true;
    s->ready = 0;
}

static int subscribe(struct member *m, struct session *s) {
    char name[RABBITMQ_NAME_MAX];
    struct link *l = &s->link;
    amqp_basic_qos(l->state, LINK_CHANNEL, 0, PREFETCH, 0);
    int r = link_check(l, amqp_get_rpc_reply(l->state), "reading a queue");
    if (r)
        return r;
    amqp_basic_consume(
        l->state, LINK_CHANNEL,
        amqp_cstring_bytes(rabbitmq_stream(&m->seats.streams, (unsigned)(s - m->sessions), name)),
        amqp_empty_bytes, 0, 0, 0, amqp_empty_table);
    r = link_check(l, amqp_get_rpc_reply(l->state), "reading a queue");
    if (r > 0 && l->code == LINK_CODE_NOT_FOUND)
        note_removed(m, s);
    s->removed = s->removed && r != 0;
    return r > 0 ? LOG_E_UNAVAILABLE : r; /* RabbitMQ may not have started it yet */
}

/* LOG_E_UNAVAILABLE: not now. */
static int begin_session(struct member *m, struct session *s) {
    struct group_numbers numbers = {0};
    if (!is_past(m, s->ended_ns, RETRY_MS))
        return LOG_E_UNAVAILABLE;
    s->ended_ns = os_monotonic_ns(m->os);
    int r = m->member.number(m->member.context, (unsigned)(s - m->sessions), &numbers);
    if (r)
        return r < 0 ? r
                     : log_fail(s->link.why, LOG_E_UNAVAILABLE,
                                "the store begins no session of a queue");
    s->number = numbers.session;
    r = link_connect(&s->link, RABBITMQ_HEARTBEAT_S, deadline_after(m, m->timeout_ms));
    if (r == 0)
        r = subscribe(m, s);
    if (r) {
        end_session(m, s);
        s->link.host = (s->link.host + 1) % s->link.url->n_hosts;
    }
    s->failing = s->failing && r != 0;
    s->came_ns = os_monotonic_ns(m->os);
    return r;
}

/* Another session began, so this one's partition is read from the store's position. */
static void begin_anew(struct member *m, struct session *s) {
    s->reading = false;
    rabbitmq_seats_renew(&m->seats, (unsigned)(s - m->sessions));
}

static int look_after(struct member *m, struct session *s) {
    if (!s->reading)
        return 0;
    if (!s->link.state)
        return s->paused ? 0 : begin_session(m, s);
    int r = take_frames(m, s);
    return r ? r : number_new(m, s);
}

/* A store that does not answer must not keep us from answering the broker: who has had no turn
 * within a second comes first the next time. */
static void look_after_all(struct member *m) {
    assert(m->seats.streams.n > 0 && "rabbitmq_streams_init");
    uint64_t begun_ns = os_monotonic_ns(m->os);
    for (unsigned i = 0; i < m->seats.streams.n && !is_past(m, begun_ns, LOOK_MS); i++) {
        struct session *s = &m->sessions[m->turn];
        m->turn = (m->turn + 1) % m->seats.streams.n;
        int r = look_after(m, s);
        if (r == 0)
            continue;
        end_session(m, s);
        if (r == LOG_E_END)
            begin_anew(m, s);
        s->failing = r != LOG_E_END;
    }
}

/* ---- seats ---- */

static void take(struct shared_member *member, unsigned partition) {
    struct member *m = member_of(member);
    struct session *s = &m->sessions[partition];
    end_session(m, s);
    s->reading = s->paused = s->failing = false;
}

/* How many messages a queue has that nobody has in his hands. One partition at a time. */
static int count_some(struct member *m) {
    char name[RABBITMQ_NAME_MAX];
    struct link *l = &m->seats.link;
    if (!l->state || !is_past(m, m->counted_ns, COUNT_MS))
        return 0;
    m->counted_ns = os_monotonic_ns(m->os);
    for (unsigned i = 0; i < m->seats.streams.n; i++) {
        m->counted = (m->counted + 1) % m->seats.streams.n;
        if (m->sessions[m->counted].reading)
            break;
    }
    if (!m->sessions[m->counted].reading)
        return 0;
    int r = link_set_deadline(l, deadline_after(m, m->timeout_ms));
    if (r)
        return r;
    const amqp_queue_declare_ok_t *ok =
        amqp_queue_declare(l->state, LINK_CHANNEL,
                           amqp_cstring_bytes(rabbitmq_stream(&m->seats.streams, m->counted, name)),
                           1, 1, 0, 0, amqp_empty_table);
    r = link_check(l, amqp_get_rpc_reply(l->state), "counting messages");
    if (r == 0)
        m->sessions[m->counted].ready = ok->message_count;
    if (r <= 0 || l->code != LINK_CODE_NOT_FOUND)
        return r;
    note_removed(m, &m->sessions[m->counted]);
    return link_reopen(l);
}

static void look_after_seats(struct member *m) {
    rabbitmq_seats_look(&m->seats);
    if (count_some(m))
        rabbitmq_seats_lose(&m->seats);
    for (unsigned p = 0; m->seats.link.state && p < m->seats.streams.n; p++) {
        if (!m->sessions[p].failing)
            continue;
        m->member.reachable = false;
        snprintf(m->member.why, sizeof m->member.why, "%s", m->sessions[p].link.why);
    }
}

/* ---- giving on ---- */

/* The lowest number that was not given on. Of two messages with one number the first was. */
static struct message *lowest(struct session *s) {
    struct message *found = NULL;
    for (unsigned i = 0; i < s->n; i++) {
        struct message *message = message_at(s, i);
        bool is_new = message->numbered && !message->given && message->number >= s->next;
        if (is_new && (!found || message->number < found->number))
            found = message;
    }
    return found;
}

/* Whether it is its turn: one that is missing before it may come yet. */
static bool is_due(const struct member *m, const struct session *s, const struct message *message) {
    return message->number <= s->next || s->n == PREFETCH || is_past(m, s->came_ns, QUIET_MS);
}

static bool give_on(struct member *m, struct shared_delivery *ret_delivery) {
    for (unsigned i = 0; i < m->seats.streams.n; i++) {
        struct session *s = &m->sessions[m->giving];
        m->giving = (m->giving + 1) % m->seats.streams.n;
        struct message *message = s->reading && !s->paused ? lowest(s) : NULL;
        if (!message || !is_due(m, s, message))
            continue;
        *ret_delivery = (struct shared_delivery){.partition = (unsigned)(s - m->sessions),
                                                 .offset = message->number,
                                                 .bytes = bytes_of(message->body, message->size),
                                                 .owner = message->body};
        m->kept_bytes -= message->size;
        message->body = NULL;
        message->given = true;
        s->next = message->number + 1;
        return true;
    }
    return false;
}

/* Until something comes of a session that has room, or it is time to look again. */
static void wait_for_some(struct member *m, uint64_t until_ns) {
    struct pollfd fds[GROUP_PARTITIONS_MAX + 1];
    size_t n = 0;
    uint64_t now = os_monotonic_ns(m->os), round_ns = now + ROUND_MS * MS_NS;
    uint64_t end_ns = until_ns < round_ns ? until_ns : round_ns;
    if (m->seats.link.state)
        fds[n++] = (struct pollfd){.fd = amqp_get_sockfd(m->seats.link.state), .events = POLLIN};
    for (unsigned p = 0; p < m->seats.streams.n; p++) {
        struct session *s = &m->sessions[p];
        if (s->link.state && has_room(m, s))
            fds[n++] = (struct pollfd){.fd = amqp_get_sockfd(s->link.state), .events = POLLIN};
    }
    if (end_ns > now && socket_poll_ns(fds, n, (int64_t)(end_ns - now)) < 0)
        os_sleep_ns(m->os, end_ns - now);
}

/* ---- the table ---- */

static int queues_next(struct shared_member *member, uint64_t wait_ms,
                       struct shared_delivery *ret_delivery) {
    struct member *m = member_of(member);
    uint64_t until_ns = deadline_after(m, wait_ms);
    for (;;) {
        look_after_seats(m);
        look_after_all(m);
        if (give_on(m, ret_delivery))
            return 0;
        if (os_monotonic_ns(m->os) >= until_ns)
            return LOG_E_END;
        wait_for_some(m, until_ns);
    }
}

static void queues_release(struct shared_delivery *d) {
    free(d->owner);
}

static int queues_seek(struct shared_member *member, unsigned partition, bool known UNUSED,
                       uint64_t *offset) {
    struct member *m = member_of(member);
    struct session *s = &m->sessions[partition];
    end_session(m, s);
    s->paused = s->reading = s->failing = false;
    s->next = s->done = *offset;
    s->top = s->ready = 0;
    int r = begin_session(m, s);
    s->reading = r == 0;
    if (r > 0)
        snprintf(member->why, sizeof member->why, "%s", s->link.why);
    return r;
}

static void queues_pause(struct shared_member *member, unsigned partition, bool pause) {
    member_of(member)->sessions[partition].paused = pause;
}

static uint64_t queues_end(struct shared_member *member, unsigned partition) {
    const struct session *s = &member_of(member)->sessions[partition];
    return (s->top > s->next ? s->top : s->next) + s->ready;
}

static void queues_commit(struct shared_member *member, const struct shared_position *positions,
                          size_t n) {
    struct member *m = member_of(member);
    for (size_t i = 0; i < n; i++) {
        struct session *s = &m->sessions[positions[i].partition];
        s->done = positions[i].offset > s->done ? positions[i].offset : s->done;
        if (s->link.state && acknowledge(m, s))
            end_session(m, s);
    }
}

static int queues_join(struct os *os, const struct log_options *options,
                       struct shared_member **ret_member) {
    struct member *m = calloc(1, sizeof *m);
    *ret_member = NULL;
    if (!m)
        return error_origin(-ENOMEM);
    m->member = (struct shared_member){.ops = &rabbitmq_queue_member_ops, .reachable = true};
    m->os = os;
    m->timeout_ms = options->timeout_ms;
    for (unsigned p = 0; p < GROUP_PARTITIONS_MAX; p++)
        link_init(&m->sessions[p].link, os, options->url, options->timeout_ms);
    *ret_member = &m->member;
    return rabbitmq_seats_join(&m->seats, os, options, &m->member, take);
}

static void queues_leave(struct shared_member *member) {
    struct member *m = member_of(member);
    for (unsigned p = 0; p < m->seats.streams.n; p++) {
        end_session(m, &m->sessions[p]);
        buffer_deinit(&m->sessions[p].body);
    }
    rabbitmq_seats_leave(&m->seats);
    free(m);
}

const struct shared_member_ops rabbitmq_queue_member_ops = {
    .numbered = true,
    .join = queues_join,
    .leave = queues_leave,
    .next = queues_next,
    .release = queues_release,
    .seek = queues_seek,
    .pause = queues_pause,
    .end = queues_end,
    .commit = queues_commit,
};
