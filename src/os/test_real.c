/* SPDX-License-Identifier: Apache-2.0 */
/* What only the real system has: processes, signals, thread names, permissions, a full device. */
#include "os/file.h"
#include "os/process.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static int setup(void **state) {
    char *root = strdup("/tmp/millrace-test-XXXXXX");
    *state = root;
    return root && mkdtemp(root) ? 0 : -1;
}

static int teardown(void **state) {
    assert_int_equal(os_rmdir(os_real(), *state), 0);
    free(*state);
    return 0;
}

static void join(char path[OS_PATH_MAX], void **state, const char *name) {
    assert_int_equal(os_path_join(path, *state, "%s", name), 0);
}

static struct os_file *open_new(const char *path) {
    struct os_file *file = NULL;
    assert_int_equal(os_open(os_real(), path, OS_OPEN_WRITE | OS_OPEN_CREATE, &file), 0);
    return file;
}

/* A child that takes the lock, says so through the pipe, and waits to be killed. */
static void hold_lock(const char *path, int pipe_fd) {
    struct os_file *file = NULL;
    if (os_open(os_real(), path, OS_OPEN_WRITE, &file) || os_lock(os_real(), file) ||
        write(pipe_fd, "x", 1) != 1)
        _exit(1);
    for (;;)
        pause();
}

static void test_lock_dies_with_its_process(void **state) {
    char path[OS_PATH_MAX];
    join(path, state, "lock");
    struct os_file *file = open_new(path);
    int fds[2];
    char x;
    assert_int_equal(pipe(fds), 0);
    pid_t child = fork();
    if (child == 0)
        hold_lock(path, fds[1]);
    assert_int_equal(read(fds[0], &x, 1), 1);
    assert_int_equal(os_lock(os_real(), file), OS_E_LOCKED);
    assert_int_equal(kill(child, SIGKILL), 0);
    assert_int_equal(waitpid(child, NULL, 0), child);
    assert_int_equal(os_lock(os_real(), file), 0);
    os_close(os_real(), file);
    close(fds[0]);
    close(fds[1]);
    assert_int_equal(os_unlink(os_real(), path), 0);
}

static void test_files_are_private(void **state) {
    char path[OS_PATH_MAX];
    struct stat st;
    join(path, state, "f");
    os_close(os_real(), open_new(path));
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(os_unlink(os_real(), path), 0);
    assert_int_equal(os_mkdir(os_real(), path), 0);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    assert_int_equal(os_rmdir(os_real(), path), 0);
}

static void test_full_and_unsyncable_devices(void **state) {
    (void)state;
    struct os_file *file = NULL;
    assert_int_equal(os_open(os_real(), "/dev/full", OS_OPEN_WRITE, &file), 0);
    assert_int_equal(os_write_all(os_real(), file, "x", 1, 0), OS_E_FULL);
    assert_int_equal(os_sync(os_real(), file), -EINVAL);
    os_close(os_real(), file);
}

static void test_denied(void **state) {
    (void)state;
    struct os_file *file = NULL;
    /* Refused to root too. */
    assert_int_equal(os_open(os_real(), "/proc/version", OS_OPEN_WRITE, &file),
                     geteuid() == 0 ? 0 : OS_E_DENIED);
    os_close(os_real(), file);
    int r = os_mkdir(os_real(), "/proc/millrace");
    assert_true(r == OS_E_DENIED || r == OS_E_NOT_FOUND);
    assert_int_equal(os_make_path(os_real(), "/proc/millrace/x"), r);
}

static void test_make_path_syncs_what_it_may(void **state) {
    char path[OS_PATH_MAX];
    join(path, state, "a/b");
    assert_int_equal(os_make_path(os_real(), path), 0);
    assert_int_equal(os_make_path(os_real(), path), 0);
    assert_int_equal(os_rmdir(os_real(), path), 0);
    join(path, state, "a");
    assert_int_equal(os_rmdir(os_real(), path), 0);
}

struct seen {
    char name[32];
    bool blocked;
};

static void look_at_thread(void *argument) {
    struct seen *seen = argument;
    sigset_t mask;
    (void)pthread_getname_np(pthread_self(), seen->name, sizeof seen->name);
    (void)pthread_sigmask(SIG_SETMASK, NULL, &mask);
    seen->blocked = sigismember(&mask, SIGTERM) == 1 && sigismember(&mask, SIGHUP) == 1;
}

static void test_thread_name_and_signals(void **state) {
    (void)state;
    struct seen seen = {0};
    struct os_thread *thread = NULL;
    assert_int_equal(
        os_thread_start(os_real(), "a-name-that-is-too-long", look_at_thread, &seen, &thread), 0);
    os_thread_join(os_real(), thread);
    assert_string_equal(seen.name, "a-name-that-is-");
    assert_true(seen.blocked);
    sigset_t mask;
    assert_int_equal(pthread_sigmask(SIG_SETMASK, NULL, &mask), 0);
    assert_int_equal(sigismember(&mask, SIGTERM), 0); /* ours is as before */
}

static void test_files_are_not_inherited(void **state) {
    char path[OS_PATH_MAX];
    join(path, state, "f");
    int before = open("/dev/null", O_RDONLY); /* the lowest free number is the file's next */
    close(before);
    struct os_file *file = open_new(path);
    assert_int_equal(fcntl(before, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    os_close(os_real(), file);
    assert_int_equal(os_unlink(os_real(), path), 0);
}

static void test_descriptors_are_asked_for(void **state) {
    (void)state;
    struct rlimit limit;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = limit.rlim_max < 64 ? limit.rlim_max : 64;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    assert_int_equal(process_descriptors(), limit.rlim_max);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    assert_int_equal(limit.rlim_cur, limit.rlim_max);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lock_dies_with_its_process),
        cmocka_unit_test(test_descriptors_are_asked_for),
        cmocka_unit_test(test_files_are_private),
        cmocka_unit_test(test_full_and_unsyncable_devices),
        cmocka_unit_test(test_denied),
        cmocka_unit_test(test_make_path_syncs_what_it_may),
        cmocka_unit_test(test_thread_name_and_signals),
        cmocka_unit_test(test_files_are_not_inherited),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
