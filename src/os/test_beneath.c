/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files below a directory: what is there is read, and nothing leads out, by whatever way.
 */
#include "os/beneath.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

struct place {
    char root[64];
    char inside[80];
};

static void write_file(const char *path, const char *text) {
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
}

/* The working directory is the root: "secret" lies beside "in", which is the one that is opened. */
static int set_up(void **state) {
    struct place *p = calloc(1, sizeof *p);
    (void)snprintf(p->root, sizeof p->root, "/tmp/millrace-beneath-XXXXXX");
    assert_non_null(p ? mkdtemp(p->root) : NULL);
    assert_int_equal(chdir(p->root), 0);
    (void)snprintf(p->inside, sizeof p->inside, "%s/in", p->root);
    assert_int_equal(mkdir("in", 0700), 0);
    assert_int_equal(mkdir("in/sub", 0700), 0);
    write_file("secret", "secret");
    write_file("in/a", "0123456789");
    write_file("in/sub/b", "b");
    *state = p;
    return 0;
}

static int tear_down(void **state) {
    struct place *p = *state;
    static const char *const names[] = {"in/sub/b", "in/sub/up", "in/a",      "in/up",   "in/root",
                                        "in/near",  "in/pipe",   "in/socket", "in/null", "secret"};
    for (size_t i = 0; i < ARRAY_LENGTH(names); i++)
        (void)unlink(names[i]);
    assert_int_equal(rmdir("in/sub"), 0);
    assert_int_equal(rmdir("in"), 0);
    assert_int_equal(chdir("/"), 0);
    assert_int_equal(rmdir(p->root), 0);
    free(p);
    return 0;
}

static int open_and_close(const struct place *p, const char *path) {
    struct beneath file = {.fd = -1};
    int r = beneath_open(p->inside, path, &file);
    if (r == 0)
        beneath_close(&file);
    else
        assert_int_equal(file.fd, -1);
    return r;
}

static void test_a_file_is_read(void **state) {
    const struct place *p = *state;
    struct beneath file;
    char data[16];
    size_t n = 0;
    assert_int_equal(beneath_open(p->inside, "a", &file), 0);
    assert_int_equal(file.size, 10);
    assert_int_equal(beneath_read(&file, data, sizeof data, 0, &n), 0);
    assert_int_equal(n, 10);
    assert_int_equal(beneath_read(&file, data, 2, 7, &n), 0);
    assert_memory_equal(data, "78", 2);
    assert_int_equal(beneath_read(&file, data, sizeof data, 10, &n), 0);
    assert_int_equal(n, 0);
    beneath_close(&file);
    assert_int_equal(open_and_close(p, "sub/b"), 0);
    assert_int_equal(open_and_close(p, "sub/../a"), 0);
}

static void test_nothing_leads_out(void **state) {
    const struct place *p = *state;
    char absolute[128];
    (void)snprintf(absolute, sizeof absolute, "%s/a", p->inside);
    assert_int_equal(symlink("../secret", "in/up"), 0);
    assert_int_equal(symlink("../../secret", "in/sub/up"), 0);
    assert_int_equal(symlink(absolute, "in/root"), 0);
    assert_int_equal(symlink("sub/b", "in/near"), 0);
    static const char *const out[] = {"../secret", "sub/../../secret", "/etc/passwd",
                                      "up",        "sub/up",           "root"};
    for (size_t i = 0; i < ARRAY_LENGTH(out); i++)
        assert_int_equal(open_and_close(p, out[i]), BENEATH_E_OUTSIDE);
    assert_int_equal(open_and_close(p, absolute), BENEATH_E_OUTSIDE);
    assert_int_equal(open_and_close(p, "near"), 0);
}

static void test_only_regular_files(void **state) {
    const struct place *p = *state;
    const struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "in/socket"};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (const struct sockaddr *)&address, sizeof address), 0);
    close(fd);
    assert_int_equal(mkfifo("in/pipe", 0600), 0);
    assert_int_equal(open_and_close(p, "pipe"), BENEATH_E_NO_FILE);
    assert_int_equal(open_and_close(p, "socket"), BENEATH_E_NO_FILE);
    assert_int_equal(open_and_close(p, "sub"), BENEATH_E_NO_FILE);
    assert_int_equal(open_and_close(p, "."), BENEATH_E_NO_FILE);
    if (mknod("in/null", S_IFCHR | 0600, makedev(1, 3)) == 0) /* who is not root has none */
        assert_int_equal(open_and_close(p, "null"), BENEATH_E_NO_FILE);
}

static void test_what_is_not_there(void **state) {
    const struct place *p = *state;
    struct beneath file;
    assert_int_equal(open_and_close(p, "none"), OS_E_NOT_FOUND);
    assert_int_equal(open_and_close(p, "a/b"), OS_E_NOT_FOUND);
    assert_int_equal(open_and_close(p, ""), OS_E_NOT_FOUND);
    assert_int_equal(beneath_open("in/none", "a", &file), OS_E_NOT_FOUND);
}

static void test_a_change_is_another_version(void **state) {
    const struct place *p = *state;
    struct beneath before, after;
    assert_int_equal(beneath_open(p->inside, "a", &before), 0);
    assert_int_equal(beneath_open(p->inside, "a", &after), 0);
    assert_int_equal(before.version, after.version);
    beneath_close(&after);
    write_file("in/new", "0123456789");
    assert_int_equal(rename("in/new", "in/a"), 0);
    assert_int_equal(beneath_open(p->inside, "a", &after), 0);
    assert_int_not_equal(before.version, after.version);
    beneath_close(&before);
    beneath_close(&after);
}

#define ROW(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        ROW(test_a_file_is_read),
        ROW(test_nothing_leads_out),
        ROW(test_only_regular_files),
        ROW(test_what_is_not_there),
        ROW(test_a_change_is_another_version),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
