/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Committing to the log: what was appended is cut into messages, which the driver makes durable.
 *
 * After a failure nobody knows which of the messages are there. Exactly the same come again, cut
 * the same way, until they are: their ids are the same, so an engine that can tells them apart, and
 * a reader passes what it has seen (read.c).
 */
#include "journal/remote/remote.h"

#include <assert.h>
#include <stdio.h>

/* Keeps the sentence of a failed call. */
static void complain(struct remote *remote, const char *why) {
    static const char general[] = "The journal's engine refuses";
    for (size_t i = 0; i < remote->n_complaints; i++)
        if (strcmp(remote->complaints[i], why) == 0) {
            atomic_store(&remote->complaint, remote->complaints[i]);
            return;
        }
    if (remote->n_complaints == COMPLAINTS_MAX) {
        atomic_store(&remote->complaint, general);
        return;
    }
    char *text = remote->complaints[remote->n_complaints++];
    snprintf(text, LOG_WHY_MAX, "%s", why);
    atomic_store(&remote->complaint, text);
}

/* ---- cutting ---- */

static void add_message(struct journal *j, struct message m, struct bytes body, size_t taken) {
    struct remote *remote = j->remote;
    struct log_message *out = &remote->messages[remote->n_messages];
    assert(remote->n_messages < MESSAGES_MAX);
    m.salt = j->salt;
    m.stream_mib = (uint32_t)(j->synced_stream >> 20);
    *out = (struct log_message){.lsn = m.last_lsn, .part = m.part, .body = body};
    message_store(out->head, &m);
    remote->message_records[remote->n_messages] = taken ? m.last_lsn - m.first_lsn + 1 : 0;
    remote->message_bytes[remote->n_messages++] = taken;
}

/* A group that is too large for a message, in parts of the same size. */
static void add_parts(struct journal *j, const struct chunk *group, size_t max) {
    size_t parts = (group->bytes + max - 1) / max;
    for (size_t i = 0; i < parts; i++) {
        size_t at = i * max, size = i + 1 < parts ? max : group->bytes - at;
        add_message(j,
                    (struct message){.part = (uint32_t)i,
                                     .parts = (uint32_t)parts,
                                     .first_lsn = group->first_lsn,
                                     .last_lsn = group->last_lsn,
                                     .body_bytes = (uint32_t)group->bytes},
                    bytes_of(group->data + at, size), i + 1 < parts ? 0 : group->bytes);
    }
}

static size_t body_max(const struct remote *remote) {
    size_t least = JOURNAL_GROUP_MAX_BYTES / (MESSAGES_MAX / 2);
    size_t max = remote->driver->message_bytes_max - LOG_HEAD_BYTES;
    assert(max >= least); /* any group fits into the messages of one commit */
    return max;
}

/* Cuts what is not written yet, as much as one commit should cover. */
static void cut_messages(struct journal *j) {
    struct remote *remote = j->remote;
    size_t max = body_max(remote), bytes = 0;
    struct chunk chunk;
    while (bytes < COMMIT_BYTES_MAX && remote->n_messages < MESSAGES_MAX / 2 &&
           commit_unwritten(j, &chunk)) {
        chunk_cut(&chunk, max);
        if (chunk.bytes > max)
            add_parts(j, &chunk, max);
        else
            add_message(j,
                        (struct message){.parts = 1,
                                         .first_lsn = chunk.first_lsn,
                                         .last_lsn = chunk.last_lsn,
                                         .body_bytes = (uint32_t)chunk.bytes},
                        bytes_of(chunk.data, chunk.bytes), chunk.bytes);
        commit_written(j, chunk.bytes);
        bytes += chunk.bytes;
    }
}

/* They were given back to the window when they failed. */
static void take_again(struct journal *j) {
    struct remote *remote = j->remote;
    struct chunk chunk;
    for (size_t i = 0; i < remote->n_messages; i++)
        if (remote->message_bytes[i] && commit_unwritten(j, &chunk))
            commit_written(j, remote->message_bytes[i]);
}

/* ---- the commit ---- */

/* Returns how much longer the log is now. */
static uint64_t note_places(struct journal *j, struct commit *c) {
    struct remote *remote = j->remote;
    uint64_t stream = 0;
    mutex_lock(&remote->lock);
    for (size_t i = 0; i < remote->n_messages; i++) {
        c->bytes += remote->message_bytes[i];
        c->records += remote->message_records[i];
        stream += remote->messages[i].body.size + MESSAGE_OVERHEAD;
        if (remote->message_bytes[i])
            place_index_add(&remote->index,
                            (struct place_mark){.lsn = remote->messages[i].lsn,
                                                .position = remote->positions[i],
                                                .stream = j->synced_stream + stream});
    }
    mutex_unlock(&remote->lock);
    return stream;
}

int remote_commit(struct journal *j) {
    struct remote *remote = j->remote;
    struct commit c = {0};
    uint64_t start = os_monotonic_ns(j->os);
    if (remote->n_messages)
        take_again(j);
    else
        cut_messages(j);
    assert(remote->n_messages > 0);
    commit_io_begin(j);
    int r = remote->driver->append(remote->log, remote->messages, remote->n_messages,
                                   remote->positions);
    commit_io_end(j);
    c.sync_ns = os_monotonic_ns(j->os) - start;
    if (r) {
        complain(remote, remote->log->why);
        commit_refused(j, r);
        return error_trace(r);
    }
    lsn_t last = remote->messages[remote->n_messages - 1].lsn;
    uint64_t stream = note_places(j, &c);
    remote->n_messages = 0;
    commit_settle(j, last, stream);
    commit_publish(j, last, &c);
    return 0;
}
