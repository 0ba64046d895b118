/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A member of the group that reads a shared journal: what its driver gives it is read from the
 * position that the store has.
 *
 *   ours not ──given──▶ new ──position, seek──▶ read
 *      ▲                 └────────taken away──────┘
 *      └────────────────────────────────────────────
 *
 * Every message must have the offset behind the one before, or it is sought again. What is
 * committed is only for those who watch the lag; or, where the store keeps no positions, it is the
 * position. Then each commit that the group takes is also its word that we are a member: so the
 * lease is the session, less a quarter, from the moment at which a commit that was taken had been
 * sent.
 */
#include "journal/remote/shared.h"
#include "os/sync.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define SECOND_NS UINT64_C(1000000000)
#define START_NS (SECOND_NS / 5) /* between two tries to begin with partitions, at least */
#define REPORT_NS SECOND_NS      /* between two looks at the lag */
#define FAILING_NS (5 * SECOND_NS)
#define TRIM_NS (30 * SECOND_NS) /* between two partitions that are trimmed */
enum {
    HELD_MAX = 512, /* messages in memory */
    HELD_BYTES_MAX = 8 << 20,
    BATCH_BYTES_MAX = 4 << 20,
    TIMEOUT_MS = 5000,
    RENEWALS = 5, /* of the lease, a session */
};

struct partition {
    enum { AWAY, NEW, READING } state;
    uint64_t generation; /* the driver's, when it was given */
    bool ahead;          /* new, and the store has more than the log */
    bool begun;          /* it was read since it was given */
    uint64_t failing_ns; /* new, and since then it cannot be sought; 0: it was not tried, or can */
    uint64_t next;       /* the offset to be read */
    uint64_t gap_from;   /* from here on nothing was found when it was last read, */
    uint64_t gap_end;    /* up to here */
    uint64_t done;       /* all before this offset is known to be needed no more */
    uint64_t counted;    /* what is missing before this offset was counted as lost */
    lsn_t position;      /* all up to it was persisted */
    lsn_t read;          /* the last record of the messages before next, of those that were read */
    uint64_t committed;  /* offset that the group was told, */
    uint64_t taken;      /* and that it took, where the positions are its own */
    uint64_t trimmed;
};

struct group {
    struct os *os;
    struct group_options options;
    unsigned n; /* partitions */
    struct shared_member *member;
    struct partition partitions[GROUP_PARTITIONS_MAX];
    struct shared_delivery held[HELD_MAX]; /* in the order they came in */
    size_t n_held;
    size_t held_bytes;
    struct shared_delivery lent[HELD_MAX]; /* of the batch that was handed out */
    size_t n_lent;
    struct buffer records;
    bool paused;
    uint64_t start_ns; /* when to try again to begin with partitions */
    uint64_t reported_ns, trimmed_ns;
    unsigned start_next, trim_next;
    struct mutex lock;           /* LOCK_RANK_JOURNAL_FILES: status */
    char failing[GROUP_WHY_MAX]; /* why one could not be sought last */
    struct group_status status;
};

static const struct shared_member_ops *ops_of(const struct group *g) {
    return g->member->ops;
}

/* ---- what the driver has moved ---- */

/* Partitions that came and went within its last call. */
static unsigned follow_generations(struct group *g) {
    unsigned n = 0;
    for (unsigned p = 0; p < g->n; p++) {
        struct partition *part = &g->partitions[p];
        uint64_t generation = g->member->generation[p];
        n += generation != 0;
        if (generation == part->generation)
            continue;
        *part = (struct partition){.state = generation ? NEW : AWAY, .generation = generation};
        g->start_ns = 0;
    }
    return n;
}

static bool any_is_ahead(const struct group *g) {
    for (unsigned p = 0; p < g->n; p++)
        if (g->partitions[p].state == NEW && g->partitions[p].ahead)
            return true;
    return false;
}

/* For some time: at first an engine may not be ready for it. */
static bool any_fails(const struct group *g) {
    uint64_t now = os_monotonic_ns(g->os);
    for (unsigned p = 0; p < g->n; p++)
        if (g->partitions[p].failing_ns && now - g->partitions[p].failing_ns > FAILING_NS)
            return true;
    return false;
}

static void follow(struct group *g) {
    unsigned n = follow_generations(g);
    const char *why = !g->member->reachable ? g->member->why
                      : any_fails(g)        ? g->failing
                      : any_is_ahead(g)
                          ? "the store is ahead of the journal: its log was made anew, or has lost "
                            "records; choose another prefix of its name"
                          : NULL;
    mutex_lock(&g->lock);
    g->status.partitions = n;
    g->status.reachable = g->member->reachable;
    g->status.lost_messages += g->member->lost;
    snprintf(g->status.why, sizeof g->status.why, "%s", why ? why : "");
    mutex_unlock(&g->lock);
    g->member->lost = 0;
}

/* ---- what is committed ---- */

static bool keeps_positions(const struct group *g) {
    return !g->options.position;
}

/* The first offset that the store may yet need. */
static uint64_t needed_offset(const struct partition *part) {
    return part->position >= part->read ? part->next : shared_offset(part->position);
}

/* Within the driver's calls it may be another's already, whose position is not ours to say. */
static bool is_ours(const struct group *g, unsigned p) {
    const struct partition *part = &g->partitions[p];
    return part->state == READING && part->generation == g->member->generation[p];
}

/* Of one that is only for watchers and gets lost nothing more is said: it shows a larger lag for a
 * second. */
static void commit_offsets(struct group *g, bool also_known) {
    struct shared_position positions[GROUP_PARTITIONS_MAX];
    size_t n = 0;
    for (unsigned p = 0; p < g->n; p++) {
        struct partition *part = &g->partitions[p];
        uint64_t offset = needed_offset(part);
        if (!is_ours(g, p) || (offset <= part->committed && !also_known))
            continue;
        positions[n++] = (struct shared_position){.partition = p, .offset = offset};
        part->committed = offset;
    }
    if (n > 0 && ops_of(g)->commit)
        ops_of(g)->commit(g->member, positions, n);
}

static bool has_more_to_commit(const struct group *g) {
    for (unsigned p = 0; p < g->n; p++)
        if (is_ours(g, p) && needed_offset(&g->partitions[p]) > g->partitions[p].committed)
            return true;
    return false;
}

/* What was not taken is to be sent again. */
static void take_refusal(struct group *g) {
    for (unsigned p = 0; p < g->n && g->member->refused; p++)
        g->partitions[p].committed = 0;
    g->member->refused = false;
}

/* Nothing that was told is still unanswered. */
static void note_taken(struct group *g) {
    for (unsigned p = 0; p < g->n; p++)
        g->partitions[p].taken = g->partitions[p].committed;
}

/* Where the positions are the engine's: they go there at once, one commit after the other, and
 * often enough that the lease does not end. */
static void keep_lease(struct group *g) {
    const struct shared_member *m = g->member;
    bool old = os_monotonic_ns(g->os) - m->sent_ns >= m->session_ns / RENEWALS;
    take_refusal(g);
    if (keeps_positions(g) && m->unanswered == 0 && (old || has_more_to_commit(g)))
        commit_offsets(g, true);
}

/* Within a call of the driver. Where partitions are taken, what is committed is for who has them
 * next. */
static void have_turn(void *group, bool taking) {
    struct group *g = group;
    if (!keeps_positions(g))
        return;
    if (taking) {
        commit_offsets(g, true);
    } else if (!g->member->refused) {
        if (g->member->unanswered == 0)
            note_taken(g);
        keep_lease(g);
    }
}

uint64_t group_lease_ns(const struct group *g) {
    const struct shared_member *m = g->member;
    return m->taken_ns ? m->taken_ns + m->session_ns / 4 * 3 : 0;
}

static int number(void *group, unsigned partition, struct group_numbers *numbers) {
    struct group *g = group;
    return g->options.number(g->options.context, partition, numbers);
}

/* ---- joining and leaving ---- */

static int join(struct group *g, const struct log_options *options, char why[LOG_WHY_MAX]) {
    int r = shared_check_url(options->url, why);
    if (r)
        return r;
    const struct shared_member_ops *ops = shared_driver_find(options->url)->member;
    if (keeps_positions(g) && !ops->committed)
        return log_fail(why, LOG_E_REFUSED,
                        "the %s store keeps no positions, and neither does this engine",
                        options->name);
    if (ops->numbered && !g->options.number)
        return log_fail(why, LOG_E_REFUSED,
                        "the %s store numbers no messages, and neither does this engine",
                        options->name);
    g->n = journal_url_partitions(options->url);
    r = ops->join(g->os, options, &g->member);
    if (r > 0)
        snprintf(why, LOG_WHY_MAX, "%s", g->member->why);
    if (r)
        return r;
    g->member->turn = have_turn;
    g->member->number = number;
    g->member->context = g;
    return 0;
}

int group_open(struct os *os, const struct group_options *options, struct group **ret_group,
               char why[GROUP_WHY_MAX]) {
    struct group *g = calloc(1, sizeof *g);
    if (!g)
        return error_origin(-ENOMEM);
    g->os = os;
    g->options = *options;
    g->status.reachable = true;
    mutex_init(&g->lock, LOCK_RANK_JOURNAL_FILES);
    const struct log_options log = {.url = options->url,
                                    .name = options->name,
                                    .timeout_ms =
                                        options->timeout_ms ? options->timeout_ms : TIMEOUT_MS,
                                    .warn = options->tell,
                                    .context = options->context};
    int r = join(g, &log, why);
    if (r) {
        group_close(g);
        return r < 0                ? error_trace(r)
               : r == LOG_E_REFUSED ? JOURNAL_E_REFUSED
                                    : JOURNAL_E_UNAVAILABLE;
    }
    *ret_group = g;
    return 0;
}

static void give_back(struct group *g, struct shared_delivery *deliveries, size_t *n) {
    for (size_t i = 0; i < *n; i++)
        ops_of(g)->release(&deliveries[i]);
    *n = 0;
}

struct group *group_close(struct group *g) {
    if (!g)
        return NULL;
    if (g->member) {
        give_back(g, g->lent, &g->n_lent);
        give_back(g, g->held, &g->n_held);
        ops_of(g)->leave(g->member);
    }
    buffer_deinit(&g->records);
    mutex_deinit(&g->lock);
    free(g);
    return NULL;
}

/* ---- beginning with a partition ---- */

/* From the position on, once there is time to seek it. */
static void read_again(struct group *g, unsigned p) {
    struct partition *part = &g->partitions[p];
    uint64_t needed = needed_offset(part);
    part->done = part->done < needed ? needed : part->done;
    ops_of(g)->pause(g->member, p, true);
    part->state = NEW;
}

/* What is held of it was fetched before. */
static void drop_held(struct group *g, unsigned p) {
    size_t kept = 0;
    for (size_t i = 0; i < g->n_held; i++) {
        struct shared_delivery *d = &g->held[i];
        if (d->partition != p) {
            g->held[kept++] = *d;
            continue;
        }
        g->held_bytes -= d->bytes.size;
        ops_of(g)->release(d);
    }
    g->n_held = kept;
}

/* What the group has committed, as the store keeps nothing. What we have told it since may be on
 * its way yet: who has seen that position relies on it, so we do not go back behind it. */
static bool find_committed(struct group *g, unsigned p) {
    struct partition *part = &g->partitions[p];
    if (ops_of(g)->committed(g->member, p, &part->next))
        return false;
    lsn_t committed = part->next ? shared_lsn(part->next, 0) - 1 : 0;
    if (part->position > committed)
        part->next = shared_offset(part->position);
    else
        part->position = committed;
    return true;
}

/* The store's. */
static bool find_position(struct group *g, unsigned p) {
    struct partition *part = &g->partitions[p];
    if (keeps_positions(g))
        return find_committed(g, p);
    if (g->options.position(g->options.context, p, &part->position))
        return false;
    part->next = shared_offset(part->position);
    return true;
}

/* How many messages there are, or were, from the offset `from` on and below `to`. */
static uint64_t messages_in(struct group *g, unsigned p, uint64_t from, uint64_t to) {
    if (from >= to)
        return 0;
    return to - from - (ops_of(g)->empty ? ops_of(g)->empty(g->member, p, from, to) : 0);
}

/* Those that the log has no more. */
static void note_lost(struct group *g, unsigned p, uint64_t from, uint64_t to) {
    struct partition *part = &g->partitions[p];
    char sentence[GROUP_WHY_MAX];
    uint64_t messages = messages_in(g, p, from > part->counted ? from : part->counted, to);
    part->counted = to > part->counted ? to : part->counted;
    if (messages <= ops_of(g)->own_offsets)
        return;
    messages -= ops_of(g)->own_offsets;
    mutex_lock(&g->lock);
    g->status.lost_messages += messages;
    mutex_unlock(&g->lock);
    if (!g->options.tell)
        return;
    snprintf(
        sentence, sizeof sentence,
        "%llu messages of partition %u of the log of %s were deleted before they were applied, "
        "by its retention or by somebody: what was acknowledged in them is lost",
        (unsigned long long)messages, p, g->options.name);
    g->options.tell(g->options.context, sentence);
}

/* What the log has no more should be done with. What the store's position does not tell, as it
 * knows nothing of messages that were passed over, the group may. */
static void check_lost(struct group *g, unsigned p, uint64_t done) {
    struct partition *part = &g->partitions[p];
    uint64_t committed = 0;
    if (part->done < done)
        part->done = done;
    if (part->done < part->next && ops_of(g)->committed &&
        ops_of(g)->committed(g->member, p, &committed) == 0 && part->done < committed)
        part->done = committed;
    if (part->done >= part->next)
        return;
    note_lost(g, p, part->done, part->next);
    part->done = part->next;
}

static void note_failing(struct group *g, unsigned p, bool fails) {
    struct partition *part = &g->partitions[p];
    if (!fails)
        part->failing_ns = 0;
    else if (part->failing_ns == 0)
        part->failing_ns = os_monotonic_ns(g->os);
    if (fails)
        snprintf(g->failing, sizeof g->failing, "%s", g->member->why);
}

/* A store ahead of the log has seen another log of this name: what comes now would be taken for
 * what it has. */
static void begin_partition(struct group *g, unsigned p) {
    struct partition *part = &g->partitions[p];
    if (!find_position(g, p))
        return;
    bool known = part->position > 0 && !keeps_positions(g);
    if (part->done > part->next + known) { /* read again, behind what the position does not tell */
        part->next = part->done;
        known = false;
    }
    uint64_t done = part->next + known;
    int r = ops_of(g)->seek(g->member, p, known, &part->next);
    part->ahead = r == LOG_E_END;
    note_failing(g, p, r != 0 && r != LOG_E_END);
    if (r)
        return;
    check_lost(g, p, done);
    drop_held(g, p);
    part->state = READING;
    part->begun = true;
    part->read = 0;
    part->committed = part->taken = part->trimmed = part->next;
}

/* Whoever is asked may not answer for long: after a second the partitions that are read already
 * have their turn, for as long as was waited. */
static void begin_partitions(struct group *g) {
    uint64_t begun = os_monotonic_ns(g->os), now = begun;
    if (begun < g->start_ns)
        return;
    for (unsigned i = 0; i < g->n && now - begun < SECOND_NS; i++) {
        unsigned p = g->start_next++ % g->n;
        if (g->partitions[p].state == NEW)
            begin_partition(g, p);
        now = os_monotonic_ns(g->os);
    }
    g->start_ns = now + (now - begun > START_NS ? now - begun : START_NS);
}

/* ---- looking, and trimming ---- */

static void look_at_lag(struct group *g) {
    uint64_t lag = 0;
    for (unsigned p = 0; p < g->n; p++) {
        uint64_t end = g->partitions[p].begun ? ops_of(g)->end(g->member, p) : 0;
        lag += messages_in(g, p, needed_offset(&g->partitions[p]), end);
    }
    mutex_lock(&g->lock);
    g->status.lag_messages = lag;
    mutex_unlock(&g->lock);
}

/* One partition a time: what the store has persisted goes. Best effort. */
static void trim(struct group *g) {
    unsigned p = g->trim_next++ % g->n;
    struct partition *part = &g->partitions[p];
    uint64_t offset = needed_offset(part);
    if (keeps_positions(g)) /* only what the group has taken: whoever is next goes on from there */
        offset = part->taken;
    if (part->state == READING && offset > part->trimmed &&
        ops_of(g)->trim(g->member, p, offset) == 0)
        part->trimmed = offset;
}

static void report(struct group *g) {
    uint64_t now = os_monotonic_ns(g->os);
    keep_lease(g);
    if (ops_of(g)->numbered) /* more comes only for what may go */
        commit_offsets(g, false);
    if (now - g->reported_ns < REPORT_NS)
        return;
    g->reported_ns = now;
    if (!g->member->reachable)
        return;
    if (!keeps_positions(g))
        commit_offsets(g, false);
    look_at_lag(g);
    if (!ops_of(g)->trim || now - g->trimmed_ns < TRIM_NS / g->n)
        return;
    g->trimmed_ns = now;
    trim(g);
}

/* ---- reading ---- */

static bool has_room(const struct group *g) {
    return g->n_held < HELD_MAX && g->held_bytes < HELD_BYTES_MAX;
}

/* What there is no room for is read again, from the position on. */
static void hold_message(struct group *g, struct shared_delivery *d) {
    struct partition *part = &g->partitions[d->partition];
    if (part->state == READING && has_room(g)) {
        g->held[g->n_held++] = *d;
        g->held_bytes += d->bytes.size;
        return;
    }
    if (part->state == READING)
        read_again(g, d->partition);
    ops_of(g)->release(d);
}

/* Waits for one message and takes what there is then. */
static void poll_messages(struct group *g, uint64_t wait_ms) {
    struct shared_delivery d;
    do {
        int r = ops_of(g)->next(g->member, wait_ms, &d);
        follow(g);
        if (r)
            return;
        wait_ms = 0;
        hold_message(g, &d);
    } while (has_room(g));
}

/* Before an offset that is too far on something may have been missed, so all from the position on
 * is read again. If nothing is found there then, there is nothing: others' transactions on Kafka
 * leave such gaps. Where the engine leaves none that it does not know of, it was lost. True: the
 * gap is passed. */
static bool pass_gap(struct group *g, unsigned p, uint64_t offset) {
    struct partition *part = &g->partitions[p];
    bool known = messages_in(g, p, part->next, offset) == 0;
    if (known || (part->gap_from == part->next && part->gap_end == offset)) {
        if (ops_of(g)->empty)
            note_lost(g, p, part->next, offset);
        part->next = offset;
        return true;
    }
    part->gap_from = part->next;
    part->gap_end = offset;
    read_again(g, p);
    return false;
}

/* The position's own message may have more records, or is done with: of an engine that is numbered
 * it does not come again then. */
static bool is_behind_position(const struct group *g, const struct shared_delivery *d) {
    const struct partition *part = &g->partitions[d->partition];
    return ops_of(g)->numbered && part->position > 0 &&
           part->next == shared_offset(part->position) && d->offset == part->next + 1;
}

/* Whether the message is the next of a partition that is ours; else it is of no use. */
static bool is_next(struct group *g, const struct shared_delivery *d) {
    struct partition *part = &g->partitions[d->partition];
    if (part->state != READING || d->offset < part->next)
        return false;
    if (is_behind_position(g, d))
        part->next = d->offset;
    return d->offset == part->next || pass_gap(g, d->partition, d->offset);
}

static bool is_held(const struct group *g, unsigned p) {
    for (size_t i = 0; i < g->n_held; i++)
        if (g->held[i].partition == p)
            return true;
    return false;
}

/* Where nothing more comes, an end that is too far on shows as much as a message would. */
static void check_ends(struct group *g) {
    for (unsigned p = 0; p < g->n; p++) {
        const struct partition *part = &g->partitions[p];
        uint64_t end = g->member->ended[p];
        if (part->state == READING && end > part->next && !is_held(g, p))
            (void)pass_gap(g, p, end); /* else it is read again */
    }
}

/* The engine checks what it stores, so what is no message of ours has never been one: it is passed,
 * and counted. */
static void pass_strange(struct group *g, const struct shared_delivery *d) {
    char sentence[GROUP_WHY_MAX];
    mutex_lock(&g->lock);
    bool first = g->status.strange_messages++ == 0;
    mutex_unlock(&g->lock);
    if (!first || !g->options.tell)
        return;
    snprintf(sentence, sizeof sentence,
             "the log of %s has messages that are none of millrace, as that at offset %llu of "
             "partition %u: they are passed over; give the journal a prefix of its own",
             g->options.name, (unsigned long long)d->offset, d->partition);
    g->options.tell(g->options.context, sentence);
}

/* Records that were persisted before are left out. */
static void decode(struct group *g, const struct shared_delivery *d, struct partition *part) {
    size_t before = g->records.size;
    if (!shared_message_load(d->bytes, d->offset, &g->records)) {
        if (!g->records.failed)
            pass_strange(g, d);
        return;
    }
    struct journal_record *all = (struct journal_record *)(void *)g->records.data;
    size_t first = before / sizeof *all, n = g->records.size / sizeof *all, kept = first;
    if (n > first)
        part->read = all[n - 1].lsn;
    for (size_t i = first; i < n; i++)
        if (all[i].lsn > part->position)
            all[kept++] = all[i];
    g->records.size = kept * sizeof *all;
}

/* Moves what is held of the first message's partition into the batch. What there is no memory for
 * was not read: it comes again. */
static void lend(struct group *g, unsigned p) {
    struct partition *part = &g->partitions[p];
    size_t kept = 0, bytes = 0;
    for (size_t i = 0; i < g->n_held; i++) {
        const struct shared_delivery d = g->held[i];
        if (d.partition != p || bytes > BATCH_BYTES_MAX) {
            g->held[kept++] = d;
            continue;
        }
        g->held_bytes -= d.bytes.size;
        g->lent[g->n_lent++] = d;
        if (g->records.failed || !is_next(g, &d))
            continue;
        bytes += d.bytes.size;
        decode(g, &d, part);
        part->next += !g->records.failed;
    }
    g->n_held = kept;
}

static int take_batch(struct group *g, struct group_batch *ret_batch) {
    give_back(g, g->lent, &g->n_lent);
    buffer_clear(&g->records);
    if (g->n_held == 0)
        return JOURNAL_E_END;
    unsigned p = g->held[0].partition;
    lend(g, p);
    int r = buffer_check(&g->records);
    if (r) {
        read_again(g, p);
        return error_trace(r);
    }
    struct group_batch batch = {.partition = p,
                                .records = (struct journal_record *)(void *)g->records.data,
                                .n = g->records.size / sizeof(struct journal_record)};
    if (batch.n == 0)
        return JOURNAL_E_END;
    *ret_batch = batch;
    return 0;
}

static void pause_or_resume(struct group *g, bool pause) {
    for (unsigned p = 0; p < g->n; p++)
        if (g->partitions[p].state == READING)
            ops_of(g)->pause(g->member, p, pause);
    g->paused = pause;
}

int group_read(struct group *g, uint64_t wait_ms, struct group_batch *ret_batch) {
    give_back(g, g->lent, &g->n_lent);
    if (g->paused)
        pause_or_resume(g, false);
    check_ends(g);
    begin_partitions(g);
    report(g);
    if (has_room(g))
        poll_messages(g, g->n_held ? 0 : wait_ms);
    return take_batch(g, ret_batch);
}

bool group_hold(struct group *g, unsigned partition, uint64_t wait_ms) {
    if (!g->paused)
        pause_or_resume(g, true);
    report(g);
    poll_messages(g, wait_ms); /* also without room: who does not poll is put out of the group */
    return g->partitions[partition].state == READING;
}

void group_persisted(struct group *g, unsigned partition, lsn_t lsn) {
    if (lsn > g->partitions[partition].position)
        g->partitions[partition].position = lsn;
}

void group_status(struct group *g, struct group_status *ret_status) {
    mutex_lock(&g->lock);
    *ret_status = g->status;
    mutex_unlock(&g->lock);
}
