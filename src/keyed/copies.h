/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Copies of what all else in a database depends on, in files beside it, so that a damaged byte
 * there stops no start (invariant 7). They are written before what they are copies of; what is
 * damaged in them costs nothing while the database is whole, and the next checkpoint writes it
 * again.
 *
 *   STATE.copy     the store's state before and after the checkpoint that is being made; replaced
 *   MANIFEST.copy  the bytes of RocksDB's manifest, and its name; appended to (manifest_copy.c)
 *
 * They are made of frames: u32 size, u32 crc32c of what follows, then so many bytes. A store may
 * have others of its own. No locks: one thread at a time, the checkpoint's.
 */
#ifndef MILLRACE_KEYED_COPIES_H
#define MILLRACE_KEYED_COPIES_H

#include "os/file.h"

enum {
    _COPIES_E_SUCCESS,
    COPIES_E_NONE = 100, /* there is no copy, or it is damaged itself */
};

/* A file of frames that is appended to. */
struct copy_file {
    struct os_file *file;
    uint64_t end; /* of the frames that are whole */
};

struct copies {
    struct os *os;
    const char *directory; /* the store's: borrowed */
    struct copy_file manifest;
    char manifest_name[64];
    uint64_t manifest_size; /* bytes of the manifest that are copied */
};
void copies_init(struct copies *c, struct os *os, const char *directory);
void copies_deinit(struct copies *c);

/* What is found damaged, in a sentence. */
struct copies_report {
    void (*each)(void *context, const char *sentence);
    void *context;
};
void copies_report(const struct copies_report *report, const char *sentence);
/* Whether both are whole. Negative on I/O. */
int copies_verify(struct os *os, const char *directory,
                  const struct copies_report *report) MUST_USE;

/* ---- Frames ---- */
enum { FRAME_HEADER = 8 };
void frame_append(struct buffer *out, struct bytes payload);
/* False at the end, and before a frame that is not whole. */
bool frame_next(struct bytes file, uint64_t *at, struct bytes *ret_payload) MUST_USE;
int copy_file_append(struct os *os, struct copy_file *f, struct bytes frames) MUST_USE;

/* ---- The state ---- */
/* Whether a checkpoint was ever begun: then the database is not to be created anew. */
bool copies_exist(struct os *os, const char *directory);
/* sequence: RocksDB's before the ingest, which makes it larger: so a copy of two states says which
 * of them a database is in. before is empty when there is none. Synced. */
int copies_write_state(struct copies *c, uint64_t sequence, struct bytes before,
                       struct bytes after) MUST_USE;
/* The copy of the state of a database whose sequence is now `sequence`; COPIES_E_NONE. */
int copies_read_state(struct os *os, const char *directory, uint64_t sequence,
                      struct buffer *ret_state) MUST_USE;

/* ---- RocksDB's manifest (manifest_copy.c) ---- */
/* Before the database is opened: puts back what is damaged in MANIFEST and CURRENT. */
int copies_mend_manifest(struct os *os, const char *directory,
                         const struct copies_report *report) MUST_USE;
/* Says what mending would; changes nothing. */
int copies_verify_manifest(struct os *os, const char *directory,
                           const struct copies_report *report) MUST_USE;
/* Copies what the manifest has grown by. Best effort: it fails without harm. */
void copies_follow_manifest(struct copies *c);

#endif
