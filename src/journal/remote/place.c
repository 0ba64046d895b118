/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where records lie in the log: marks in memory, about every step_bytes one, and one in a file, so
 * that a start need not read from the oldest message.
 */
#include "journal/remote/remote.h"

#include "base/hash.h"
#include "os/file.h"

#include <errno.h>

/* ---- marks ---- */

/* Every other one goes. */
static void thin_out(struct place_index *index) {
    size_t n = 0;
    for (size_t i = 0; i < index->n; i += 2)
        index->marks[n++] = index->marks[i];
    index->n = n;
    index->step_bytes *= 2;
}

void place_index_add(struct place_index *index, struct place_mark mark) {
    const struct place_mark *last = index->n ? &index->marks[index->n - 1] : NULL;
    if (index->step_bytes == 0)
        index->step_bytes = INDEX_STEP_BYTES;
    if (last && (mark.lsn <= last->lsn || mark.stream - last->stream < index->step_bytes))
        return;
    if (index->n == INDEX_MARKS_MAX)
        thin_out(index);
    index->marks[index->n++] = mark;
}

void place_index_forget(struct place_index *index, struct place_mark before) {
    size_t gone = 0;
    while (gone < index->n && index->marks[gone].lsn < before.lsn)
        gone++;
    index->n -= gone;
    memmove(index->marks, index->marks + gone, index->n * sizeof index->marks[0]);
    if (index->n < INDEX_MARKS_MAX / 8)
        index->step_bytes = INDEX_STEP_BYTES;
}

struct place_mark place_index_find(const struct place_index *index, lsn_t lsn) {
    size_t low = 0, high = index->n;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (index->marks[middle].lsn <= lsn)
            low = middle + 1;
        else
            high = middle;
    }
    return low ? index->marks[low - 1] : (struct place_mark){0};
}

/* ---- the file ----
 *
 *    0  8  "MRPLACE1"
 *    8  4  salt
 *   12  4  crc32c of bytes 16 to 39, begun with the salt
 *   16  8  lsn
 *   24  8  position
 *   32  8  stream
 */
static const char FILE_MAGIC[8] = {'M', 'R', 'P', 'L', 'A', 'C', 'E', '1'};
enum { FILE_BYTES = 40, FILE_SUMMED = 16 };

int place_file_load(struct os *os, const char *directory, struct place_file *ret_file) {
    CLEANUP(buffer_deinit) struct buffer file = BUFFER_INIT;
    char path[OS_PATH_MAX];
    int r = os_path_join(path, directory, "REMOTE");
    if (!r)
        r = os_load(os, path, FILE_BYTES, &file);
    if (r == OS_E_NOT_FOUND) {
        *ret_file = (struct place_file){0};
        return 0;
    }
    if (r)
        return error_fold(r);
    uint32_t salt = file.size == FILE_BYTES ? load_u32(file.data + 8) : 0;
    if (file.size != FILE_BYTES || memcmp(file.data, FILE_MAGIC, sizeof FILE_MAGIC) != 0 ||
        load_u32(file.data + 12) != crc32c(salt, file.data + FILE_SUMMED, FILE_BYTES - FILE_SUMMED))
        return error_origin(-EBADMSG);
    *ret_file = (struct place_file){.salt = salt,
                                    .mark = {.lsn = load_u64(file.data + 16),
                                             .position = load_u64(file.data + 24),
                                             .stream = load_u64(file.data + 32)}};
    return 0;
}

int place_file_save(struct os *os, const char *directory, const struct place_file *file) {
    uint8_t bytes[FILE_BYTES];
    char path[OS_PATH_MAX];
    int r = os_path_join(path, directory, "REMOTE");
    if (r)
        return error_trace(r);
    memcpy(bytes, FILE_MAGIC, sizeof FILE_MAGIC);
    store_u32(bytes + 8, file->salt);
    store_u64(bytes + 16, file->mark.lsn);
    store_u64(bytes + 24, file->mark.position);
    store_u64(bytes + 32, file->mark.stream);
    store_u32(bytes + 12, crc32c(file->salt, bytes + FILE_SUMMED, FILE_BYTES - FILE_SUMMED));
    return error_trace(os_replace(os, path, bytes_of(bytes, sizeof bytes)));
}
