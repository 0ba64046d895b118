/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs a fuzz target without a fuzzer, so that it is a test in every build: over each file of its
 * corpus, and over a bounded number of random changes of them.
 *
 *   test-fuzz-<name> <corpus directory> [<rounds> [<seed>]]
 *   test-fuzz-<name> <file>              one input, as to look at a crash
 *
 * The seed is fixed unless it is given. Before an input that is not a file is run, it is written to
 * fuzz-<pid>.input in the working directory, which is removed at the end of a good run: what is
 * left there is the input that crashed.
 */
#include "fuzz.h"

#include "base/bytes.h"
#include "base/hash.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

enum { INPUTS_MAX = 1000, INPUT_MAX_BYTES = 1 << 16, CHANGES_MAX = 8 };

struct corpus {
    struct buffer inputs[INPUTS_MAX];
    size_t count;
};

struct random {
    uint64_t state;
};

/* 0 to bound - 1. */
static size_t pick(struct random *r, size_t bound) {
    return hash64_u64(r->state++) % bound;
}

static void must(bool good, const char *what) {
    if (good)
        return;
    perror(what);
    exit(2);
}

static void read_file(const char *path, struct buffer *ret) {
    FILE *f = fopen(path, "rb");
    must(f, path);
    uint8_t *to = buffer_reserve(ret, INPUT_MAX_BYTES);
    must(to, "memory");
    ret->size = fread(to, 1, INPUT_MAX_BYTES, f);
    fclose(f);
}

static void read_corpus(const char *path, struct corpus *c) {
    DIR *dir = opendir(path);
    must(dir, path);
    for (struct dirent *e; (e = readdir(dir)) && c->count < INPUTS_MAX;) {
        char file[4096];
        snprintf(file, sizeof file, "%s/%s", path, e->d_name);
        if (e->d_name[0] != '.')
            read_file(file, &c->inputs[c->count++]);
    }
    closedir(dir);
    must(c->count > 0, "an empty corpus");
}

/* From memory of just that size, so that a sanitizer sees a read past it. */
static void run(struct bytes input) {
    uint8_t *copy = malloc(input.size ? input.size : 1);
    must(copy, "memory");
    if (input.size)
        memcpy(copy, input.data, input.size);
    LLVMFuzzerTestOneInput(copy, input.size);
    free(copy);
}

static void replace(struct buffer *b, size_t from, size_t to, struct bytes by) {
    struct buffer out = BUFFER_INIT;
    buffer_append(&out, b->data, from);
    buffer_append_bytes(&out, by);
    buffer_append(&out, b->data + to, b->size - to);
    buffer_deinit(b);
    *b = out;
}

/* One change: a byte, a bit, a cut, or a part of some input put in place of another. */
static void change(struct random *r, struct buffer *b, const struct corpus *c) {
    size_t a = pick(r, b->size + 1), z = pick(r, b->size + 1);
    size_t from = a < z ? a : z, to = a < z ? z : a;
    const struct buffer *other = &c->inputs[pick(r, c->count)];
    size_t start = pick(r, other->size + 1);
    uint8_t byte = (uint8_t)pick(r, 256);
    switch (pick(r, 5)) {
    case 0:
        replace(b, from, from + (from < b->size), bytes_of(&byte, 1));
        break;
    case 1:
        if (from < b->size)
            b->data[from] ^= (uint8_t)(1 << byte % 8);
        break;
    case 2:
        replace(b, from, to, (struct bytes){0});
        break;
    case 3:
        replace(b, from, from, bytes_of(b->data + from, to - from));
        break;
    default:
        replace(b, from, to, bytes_of(other->data + start, pick(r, other->size - start + 1)));
    }
    if (b->size > INPUT_MAX_BYTES)
        b->size = INPUT_MAX_BYTES;
}

static void keep(int fd, struct bytes input) {
    must(pwrite(fd, input.data, input.size, 0) == (ssize_t)input.size, "fuzz input");
    must(ftruncate(fd, (off_t)input.size) == 0, "fuzz input");
}

static void run_changed(const struct corpus *c, size_t rounds, uint64_t seed) {
    struct random r = {.state = seed << 32};
    char path[64];
    snprintf(path, sizeof path, "fuzz-%ld.input", (long)getpid());
    int fd = open(path, O_CREAT | O_TRUNC | O_RDWR | O_CLOEXEC, 0666);
    must(fd >= 0, path);
    for (size_t i = 0; i < rounds; i++) {
        struct buffer b = BUFFER_INIT;
        buffer_append_bytes(&b, buffer_bytes(&c->inputs[pick(&r, c->count)]));
        for (size_t n = 1 + pick(&r, CHANGES_MAX); n > 0; n--)
            change(&r, &b, c);
        must(!b.failed, "memory");
        keep(fd, buffer_bytes(&b));
        run(buffer_bytes(&b));
        buffer_deinit(&b);
    }
    close(fd);
    unlink(path);
}

int main(int argc, char **argv) {
    struct corpus *c = calloc(1, sizeof *c);
    struct stat st;
    must(c && argc > 1 && stat(argv[1], &st) == 0, "corpus");
    if (S_ISDIR(st.st_mode))
        read_corpus(argv[1], c);
    else
        read_file(argv[1], &c->inputs[c->count++]);
    for (size_t i = 0; i < c->count; i++)
        run(buffer_bytes(&c->inputs[i]));
    size_t rounds = argc > 2 ? strtoul(argv[2], NULL, 10) : 0;
    uint64_t seed = argc > 3 ? strtoull(argv[3], NULL, 10) : 1;
    printf("%zu inputs, %zu changed ones from seed %llu\n", c->count, rounds,
           (unsigned long long)seed);
    fflush(stdout);
    run_changed(c, rounds, seed);
    for (size_t i = 0; i < c->count; i++)
        buffer_deinit(&c->inputs[i]);
    free(c);
    return 0;
}
