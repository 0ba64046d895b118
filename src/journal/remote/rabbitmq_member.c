/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A member of the group that reads a shared journal on RabbitMQ.
 *
 * Three connections. One is for the seats (rabbitmq_seats.h), by which members divide the
 * partitions.
 *
 * The others read. One has a consumer a partition that is read; it sends no more ahead than its
 * prefetch, so what is not taken stays at the broker. When it is lost, or a stream of it is gone,
 * all partitions count as given anew, and are sought where the store says: what comes then may be
 * of another stream of that name, or of one that lost its newest. One whose consumer is ended
 * (paused, sought anew) goes by another number then: what is on its way of the former is dropped.
 *
 * By the third, the **probe**, is looked whether a stream can be read, whether it has what the
 * store has, and how far it goes. A stream that is missing or silent, or that the broker refuses,
 * which costs the connection, so stops nobody else.
 *
 * A stream has no place for an identity: what a declaration says of it cannot be asked for, and its
 * first message goes with its first segment. So one that was made anew is known by what it is short
 * of: its newest message is before what was read. One that this process did not find for a while is
 * the same if it still has the message that was read of it last. One that has come up to what was
 * read before any worker looks is not noticed.
 */
#include "base/hash.h"
#include "journal/remote/rabbitmq_seats.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define MS_NS UINT64_C(1000000)
enum {
    RETRY_MS = 500, /* between two tries to connect */
    END_MS = 1000,  /* between two looks at how far a partition goes, */
    ENDS_MS = 100,  /* and between those at two partitions, at least */
    LOOK_MS = 1000, /* for the first message of a stream to come */
    CHUNK_MS = 200, /* and for more of the newest that come together */
    PROBE_PREFETCH = 2,
    BREATH_MS = 250, /* between two words on the seats' connection */
};

struct partition {
    bool reading;      /* was sought, */
    bool paused;       /* and stopped since */
    uint64_t consumer; /* 0: none, as the connection is lost, or it is paused */
    uint64_t next;     /* the offset behind what came last */
    uint64_t end;      /* of which is known that there was a message before it */
};

/* What outlives that it is given and taken. */
struct known {
    bool gone;     /* there was no such stream, after something of it had been read */
    bool was_read; /* in this process, and this was the last of it: */
    uint64_t offset;
    uint64_t hash;
};

struct member {
    struct shared_member member; /* first */
    struct os *os;
    uint64_t timeout_ms;
    struct rabbitmq_seats seats;
    uint64_t connected_ns; /* when that was last tried */
    struct tap tap, probe;
    uint64_t consumers; /* how many there were, so far */
    uint64_t probing;   /* that of the probe; 0: none */
    bool asking;        /* it reads the newest chunk of asked, for its offset */
    unsigned asked;
    uint64_t asked_ns, probed_ns;
    struct partition partitions[GROUP_PARTITIONS_MAX];
    struct known known[GROUP_PARTITIONS_MAX];
};

static struct member *member_of(struct shared_member *m) {
    return (struct member *)m;
}

static uint64_t deadline_after(const struct member *m, uint64_t ms) {
    return os_monotonic_ns(m->os) + ms * MS_NS;
}

static bool is_time(const struct member *m, uint64_t *last_ns, uint64_t ms) {
    uint64_t now = os_monotonic_ns(m->os);
    if (*last_ns && now - *last_ns < ms * MS_NS)
        return false;
    *last_ns = now;
    return true;
}

/* ---- sharing ---- */

static void say_unreachable(struct member *m, const char *why) {
    m->member.reachable = false;
    snprintf(m->member.why, sizeof m->member.why, "%s", why);
}

static void take(struct shared_member *member, unsigned p) {
    struct member *m = member_of(member);
    struct partition *part = &m->partitions[p];
    if (part->consumer && m->tap.link.state)
        tap_cancel(&m->tap, part->consumer);
    *part = (struct partition){0};
}

/* ---- reading ---- */

/* What was read is sought anew: it may be other streams by now. */
static void lose_tap(struct member *m) {
    for (unsigned p = 0; p < m->seats.streams.n; p++) {
        if (!m->partitions[p].reading)
            continue;
        m->partitions[p] = (struct partition){0};
        rabbitmq_seats_renew(&m->seats, p);
    }
}

static int connect_tap(struct member *m) {
    if (m->tap.link.state)
        return 0;
    lose_tap(m);
    if (!is_time(m, &m->connected_ns, RETRY_MS))
        return LOG_E_UNAVAILABLE;
    int r = tap_connect(&m->tap, deadline_after(m, m->timeout_ms));
    if (r > 0)
        say_unreachable(m, m->tap.link.why);
    return r;
}

static struct partition *partition_of(struct member *m, uint64_t consumer) {
    for (unsigned p = 0; consumer && p < m->seats.streams.n; p++)
        if (m->partitions[p].consumer == consumer)
            return &m->partitions[p];
    return NULL;
}

/* The next message of a consumer that there is yet. One for which there is no memory costs the
 * connection, so that it comes again. */
static int read_tap(struct member *m, uint64_t deadline_ns, struct shared_delivery *ret_delivery) {
    for (;;) {
        struct bytes body;
        uint64_t offset;
        int r = tap_next(&m->tap, deadline_ns, &body, &offset);
        if (r)
            return r;
        struct partition *part = partition_of(m, m->tap.consumer);
        if (!part)
            continue;
        void *copy = malloc(body.size + 1); /* not of nothing */
        if (!copy) {
            link_drop(&m->tap.link, 0);
            return error_origin(-ENOMEM);
        }
        memcpy(copy, body.data, body.size);
        unsigned p = (unsigned)(part - m->partitions);
        part->next = offset + 1;
        m->known[p] = (struct known){
            .was_read = true, .offset = offset, .hash = hash64(body.data, body.size)};
        *ret_delivery = (struct shared_delivery){
            .partition = p, .offset = offset, .bytes = bytes_of(copy, body.size), .owner = copy};
        return 0;
    }
}

/* ---- the probe ---- */

static void end_probe(struct member *m) {
    if (m->probing && m->probe.link.state)
        tap_cancel(&m->probe, m->probing);
    m->probing = 0;
    m->asking = false;
}

static int begin_probe(struct member *m, unsigned p, int64_t offset) {
    char name[RABBITMQ_NAME_MAX];
    uint64_t deadline_ns = deadline_after(m, m->timeout_ms);
    end_probe(m);
    int r = m->probe.link.state ? 0 : tap_connect(&m->probe, deadline_ns);
    if (r)
        return r;
    m->probing = ++m->consumers;
    r = tap_consume(&m->probe, rabbitmq_stream(&m->seats.streams, p, name), offset, m->probing,
                    deadline_ns);
    if (r)
        m->probing = 0;
    return r;
}

/* The offset of what comes next of it. LOG_E_END: nothing came by the deadline. */
static int read_probe(struct member *m, uint64_t deadline_ns, uint64_t *ret_offset) {
    struct bytes body;
    uint64_t offset;
    int r;
    do
        r = tap_next(&m->probe, deadline_ns, &body, &offset);
    while (r == 0 && m->probe.consumer != m->probing);
    if (r == 0)
        *ret_offset = offset;
    return r;
}

/* As that; the locks' connection must not be silent meanwhile. */
static int await_probe(struct member *m, uint64_t wait_ms, uint64_t *ret_offset) {
    uint64_t until_ns = deadline_after(m, wait_ms);
    for (;;) {
        uint64_t turn_ns = deadline_after(m, BREATH_MS);
        int r = read_probe(m, turn_ns < until_ns ? turn_ns : until_ns, ret_offset);
        if (r != LOG_E_END || os_monotonic_ns(m->os) >= until_ns)
            return r;
        r = rabbitmq_seats_breathe(&m->seats);
        if (r)
            return r < 0 ? r : log_fail(m->probe.link.why, r, "%s", m->seats.link.why);
    }
}

/* A stream says how far it goes by its newest messages alone. One partition after the other; of one
 * that is empty, or cannot be read, nothing comes. */
static void ask_end(struct member *m) {
    unsigned reading = 0;
    for (unsigned p = 0; p < m->seats.streams.n; p++)
        reading += m->partitions[p].reading;
    uint64_t every_ms = reading ? END_MS / reading : END_MS;
    if (!reading || !is_time(m, &m->asked_ns, every_ms < ENDS_MS ? ENDS_MS : every_ms))
        return;
    if (!m->probe.link.state && !is_time(m, &m->probed_ns, END_MS))
        return;
    do
        m->asked = (m->asked + 1) % m->seats.streams.n;
    while (!m->partitions[m->asked].reading);
    m->asking = begin_probe(m, m->asked, TAP_LAST) == 0;
}

static void take_end(struct member *m) {
    struct partition *part = &m->partitions[m->asked];
    uint64_t offset;
    if (!m->asking || !m->probe.link.state || read_probe(m, 0, &offset))
        return;
    part->end = offset + 1 > part->end ? offset + 1 : part->end;
    end_probe(m);
}

/* ---- reading on ---- */

/* Nothing comes: what is left of the time is waited, so that nobody asks again at once. */
static int wait_in_vain(struct member *m, uint64_t until_ns) {
    uint64_t now = os_monotonic_ns(m->os);
    if (now < until_ns)
        os_sleep_ns(m->os, until_ns - now);
    return LOG_E_END;
}

static int member_next(struct shared_member *member, uint64_t wait_ms,
                       struct shared_delivery *ret_delivery) {
    struct member *m = member_of(member);
    uint64_t until_ns = deadline_after(m, wait_ms);
    rabbitmq_seats_look(&m->seats);
    int r = connect_tap(m);
    if (r == 0) {
        ask_end(m);
        take_end(m);
        r = read_tap(m, until_ns, ret_delivery);
    }
    if (r == 0 || r == LOG_E_END)
        return r;
    if (r > 0 && !m->tap.link.state)
        say_unreachable(m, m->tap.link.why);
    return wait_in_vain(m, until_ns);
}

static void member_release(struct shared_delivery *d) {
    free(d->owner);
}

/* ---- seeking ---- */

static void end_consumer(struct member *m, unsigned p) {
    struct partition *part = &m->partitions[p];
    if (part->consumer && m->tap.link.state)
        tap_cancel(&m->tap, part->consumer);
    part->consumer = 0;
}

/* Nothing came from the offset on. That may be the broker's doing; only the stream's newest message
 * says that it goes so far, or ends before: LOG_E_END. */
static int judge_silence(struct member *m, unsigned p, uint64_t offset) {
    char name[RABBITMQ_NAME_MAX];
    uint64_t newest = 0, came = 0;
    bool some = false;
    int r = begin_probe(m, p, TAP_LAST);
    while (r == 0 && (!some || newest < offset)) {
        r = await_probe(m, some ? CHUNK_MS : LOOK_MS, &came);
        some = some || r == 0;
        newest = r == 0 ? came : newest;
    }
    if (some && (r == 0 || r == LOG_E_END))
        return r;
    if (r == LOG_E_END)
        return log_fail(m->probe.link.why, LOG_E_UNAVAILABLE,
                        "nothing comes of the stream %.150s from offset %" PRIu64
                        " on, which was read before",
                        rabbitmq_stream(&m->seats.streams, p, name), offset);
    return r;
}

/* Whether a stream that was gone is the one that was read; LOG_E_END: another, as far as is
 * known. */
static int recognise(struct member *m, unsigned p) {
    struct known *known = &m->known[p];
    uint64_t offset;
    int r = begin_probe(m, p, (int64_t)known->offset);
    if (r == 0)
        r = known->was_read ? await_probe(m, LOOK_MS, &offset) : LOG_E_END;
    if (r)
        return r;
    const struct bytes body = buffer_bytes(&m->probe.body);
    /* One beyond it: the bound of the stream has dropped it. One that is made anew begins at 0. */
    known->gone = offset == known->offset && hash64(body.data, body.size) != known->hash;
    return known->gone ? LOG_E_END : 0;
}

/* Whether the stream can be read from there on, and has what is known. */
static int look(struct member *m, unsigned p, bool known, uint64_t *offset) {
    int r = known && m->known[p].gone ? recognise(m, p) : 0;
    if (r)
        return r;
    r = begin_probe(m, p, (int64_t)*offset);
    if (r > 0 && m->probe.link.code == LINK_CODE_NOT_FOUND && known)
        m->known[p].gone = true;
    if (r || !known)
        return r;
    r = await_probe(m, LOOK_MS, offset); /* it is another where RabbitMQ has dropped that one */
    return r == LOG_E_END ? judge_silence(m, p, *offset) : r;
}

static int consume(struct member *m, unsigned p) {
    char name[RABBITMQ_NAME_MAX];
    struct partition *part = &m->partitions[p];
    part->consumer = ++m->consumers;
    return tap_consume(&m->tap, rabbitmq_stream(&m->seats.streams, p, name), (int64_t)part->next,
                       part->consumer, deadline_after(m, m->timeout_ms));
}

static int member_seek(struct shared_member *member, unsigned partition, bool known,
                       uint64_t *offset) {
    struct member *m = member_of(member);
    struct partition *part = &m->partitions[partition];
    end_consumer(m, partition);
    part->reading = false;
    int r = connect_tap(m);
    if (r)
        return r;
    r = look(m, partition, known, offset);
    end_probe(m);
    if (r) {
        snprintf(member->why, sizeof member->why, "%s", m->probe.link.why);
        return r;
    }
    part->next = *offset;
    r = consume(m, partition);
    part->reading = r == 0;
    part->paused = false;
    if (r > 0)
        snprintf(member->why, sizeof member->why, "%s", m->tap.link.why);
    return r;
}

static void member_pause(struct shared_member *member, unsigned partition, bool pause) {
    struct member *m = member_of(member);
    struct partition *part = &m->partitions[partition];
    if (!part->reading || part->paused == pause)
        return;
    part->paused = pause;
    if (pause)
        end_consumer(m, partition);
    else if (m->tap.link.state) /* else when it is there again */
        (void)consume(m, partition);
}

static uint64_t member_end(struct shared_member *member, unsigned partition) {
    const struct partition *part = &member_of(member)->partitions[partition];
    return part->next > part->end ? part->next : part->end;
}

/* None is known: what is missing is lost. */
static uint64_t member_empty(struct shared_member *member UNUSED, unsigned partition UNUSED,
                             uint64_t from UNUSED, uint64_t to UNUSED) {
    return 0;
}

/* ---- life ---- */

static int member_join(struct os *os, const struct log_options *options,
                       struct shared_member **ret_member) {
    struct member *m = calloc(1, sizeof *m);
    *ret_member = NULL;
    if (!m)
        return error_origin(-ENOMEM);
    m->member = (struct shared_member){.ops = &rabbitmq_stream_member_ops, .reachable = true};
    m->os = os;
    m->timeout_ms = options->timeout_ms;
    tap_init(&m->tap, os, options->url, options->timeout_ms);
    tap_init(&m->probe, os, options->url, options->timeout_ms);
    m->probe.prefetch = PROBE_PREFETCH;
    *ret_member = &m->member;
    return rabbitmq_seats_join(&m->seats, os, options, &m->member, take);
}

static void member_leave(struct shared_member *member) {
    struct member *m = member_of(member);
    rabbitmq_seats_leave(&m->seats);
    tap_deinit(&m->tap);
    tap_deinit(&m->probe);
    free(m);
}

const struct shared_member_ops rabbitmq_stream_member_ops = {
    .own_offsets = 1, /* of each segment but the first, the first */
    .join = member_join,
    .leave = member_leave,
    .next = member_next,
    .release = member_release,
    .seek = member_seek,
    .pause = member_pause,
    .end = member_end,
    .empty = member_empty,
};
