/* SPDX-License-Identifier: Apache-2.0 */
/* exec: what a command says and how it ends is told; its limits hold; nothing it started is left.
 */
#include "tasks/test_rig.h"

#include "os/child.h"

/* The file of commands: a row each, all of them scripts of the shell. */
static void write_commands(struct rig *g, const char *name, const char *script, const char *more) {
    struct buffer out = BUFFER_INIT;
    buffer_append_string(&out, "{\"commands\":{");
    json_append_cstring(&out, name);
    buffer_append_string(&out, ":{\"argv\":[\"/bin/sh\",\"-c\",");
    json_append_cstring(&out, script);
    buffer_append_format(&out, "]%s}}}", more);
    assert_int_equal(buffer_check(&out), 0);
    assert_int_equal(os_replace(os_real(), g->commands, buffer_bytes(&out)), 0);
    buffer_deinit(&out);
}

static struct task_id run_command(struct rig *g, const char *script, const char *more) {
    write_commands(g, "it", script, more);
    return rig_add_task(g, "exec", "{\"command\":\"it\",\"args\":{\"a\":[1,\"two\"]}}");
}

static void open_rig(struct rig *g) {
    rig_open(g, 1);
    rig_start_runner(g);
}

static void expect_failure(struct rig *g, const char *script, const char *more, const char *error) {
    struct seen s = rig_wait(g, run_command(g, script, more), TASK_FAILED);
    assert_string_equal(s.error, error);
    assert_int_equal(s.deaths, 0);
}

static void test_arguments_and_results(void **state) {
    (void)state;
    struct rig g;
    open_rig(&g);
    struct seen s = rig_wait(
        &g,
        run_command(&g, "echo noise; echo '{\"current\":3,\"total\":4}'; cat; echo more noise", ""),
        TASK_SUCCEEDED);
    assert_string_equal(s.result, "{\"status\":0,\"result\":{\"a\":[1,\"two\"]},\"stderr\":\"\"}");
    assert_int_equal(s.current, 3);
    s = rig_wait(&g, run_command(&g, "echo $HOME:$X:$PATH >&2; exit 0", ",\"env\":{\"X\":\"y\"}"),
                 TASK_SUCCEEDED);
    assert_string_equal(s.result, "{\"status\":0,\"result\":null,\"stderr\":"
                                  "\":y:/usr/local/bin:/usr/bin:/bin\\n\"}");
    rig_close(&g);
}

static void test_refusals(void **state) {
    (void)state;
    struct rig g;
    open_rig(&g);
    struct task_id id = rig_add_task(&g, "exec", "{\"command\":\"it\"}");
    assert_string_equal(rig_wait(&g, id, TASK_FAILED).error,
                        "the file of commands cannot be read: there is none");
    write_commands(&g, "another", "true", "");
    id = rig_add_task(&g, "exec", "{\"command\":\"it\"}");
    assert_string_equal(rig_wait(&g, id, TASK_FAILED).error,
                        "no command of that name is configured");
    expect_failure(&g, "true", ",\"cpu_s\":0", "its cpu_s must be a whole number above 0");
    expect_failure(&g, "true", ",\"argv\":[\"sh\"]",
                   "the first of its argv must be an absolute path");
    expect_failure(&g, "true", ",\"argv\":[\"/nowhere/at/all\"]", "its program is not there");
    expect_failure(&g, "true", ",\"argv\":[\"/\"]", "its program may not be run by this user");
    rig_close(&g);
}

static void test_ends(void **state) {
    (void)state;
    struct rig g;
    open_rig(&g);
    expect_failure(&g, "echo it broke >&2; exit 7", "",
                   "the command ended with status 7: it broke\n");
    expect_failure(&g, "kill -SEGV $$", "", "the command was ended by SIGSEGV");
    expect_failure(&g, "while :; do :; done", ",\"cpu_s\":1",
                   "the command was ended by SIGXCPU after its 1 s of processor time");
    expect_failure(&g, "sleep 1000", ",\"time_s\":1", "the command ran longer than its 1 s");
    rig_close(&g);
}

static void test_memory_is_limited(void **state) {
    (void)state;
    struct rig g;
    open_rig(&g);
    const char *script = "x=$(head -c 300000000 /dev/zero | tr '\\0' x) 2>/dev/null; echo ${#x}";
    struct task_id id = run_command(&g, script, ",\"memory_mb\":64");
    struct seen s = {0};
    WAIT_FOR(rig_see(&g, id, &s) && task_status_is_end(s.status));
    assert_null(strstr(s.result, "300000000"));
    rig_close(&g);
}

static void test_floods_are_bounded(void **state) {
    (void)state;
    struct rig g;
    open_rig(&g);
    const char *script = "head -c 30000000 /dev/zero; yes 2>/dev/null | head -c 10000000;"
                         "yes e 2>/dev/null | head -c 10000000 >&2; echo; echo '{\"last\":true}'";
    struct task_id id = run_command(&g, script, "");
    struct seen s = rig_wait(&g, id, TASK_SUCCEEDED);
    assert_non_null(strstr(s.result, "{\"status\":0,\"result\":{\"last\":true},\"stderr\":\"e\\n"));
    rig_close(&g);
}

/* The process's id that the script writes to a file. */
static pid_t wait_for_pid(struct rig *g, const char *name) {
    char path[OS_PATH_MAX];
    struct buffer text = BUFFER_INIT;
    assert_int_equal(os_path_join(path, g->directory, "%s", name), 0);
    WAIT_FOR((buffer_clear(&text), os_load(os_real(), path, 100, &text)) == 0 && text.size > 0 &&
             text.data[text.size - 1] == '\n');
    buffer_append_u8(&text, 0);
    pid_t pid = (pid_t)strtol((char *)text.data, NULL, 10);
    buffer_deinit(&text);
    assert_true(pid > 1);
    return pid;
}

/* A child that has left the group and the session. */
static struct task_id run_with_strays(struct rig *g, const char *last) {
    char script[512];
    snprintf(script, sizeof script,
             "cd %s; setsid sh -c 'echo $$ >stray.new; mv stray.new stray; exec sleep 1000' & "
             "while [ ! -e stray ]; do :; done; echo $$ >main.new; mv main.new main; %s",
             g->directory, last);
    return run_command(g, script, ",\"env\":{\"PATH\":\"/usr/bin:/bin\"}");
}

static void test_cancelled_with_its_children(void **state) {
    (void)state;
    struct rig g;
    open_rig(&g);
    struct task_id id = run_with_strays(&g, "sleep 1000");
    pid_t stray = wait_for_pid(&g, "stray"), command = wait_for_pid(&g, "main");
    assert_false(process_is_gone(stray));
    rig_cancel(&g, id);
    (void)rig_wait(&g, id, TASK_CANCELLED);
    WAIT_FOR(process_is_gone(stray) && process_is_gone(command));
    assert_int_equal(rig_status(&g).died, 0);
    rig_close(&g);
}

static void test_what_it_leaves_is_killed(void **state) {
    (void)state;
    struct rig g;
    open_rig(&g);
    struct task_id id = run_with_strays(&g, "exit 0");
    pid_t stray = wait_for_pid(&g, "stray");
    (void)rig_wait(&g, id, TASK_SUCCEEDED); /* although the stray holds its pipes open */
    WAIT_FOR(process_is_gone(stray));
    rig_close(&g);
}

static void test_its_worker_is_killed(void **state) {
    (void)state;
    struct rig g;
    open_rig(&g);
    struct task_id id = run_with_strays(&g, "sleep 1000");
    pid_t stray = wait_for_pid(&g, "stray"), command = wait_for_pid(&g, "main");
    write_commands(&g, "it", "sleep 1000", "");
    assert_int_equal(kill(rig_wait_attempt(&g, id, 1).worker, SIGKILL), 0);
    (void)rig_wait_attempt(&g, id, 2);
    WAIT_FOR(process_is_gone(stray) && process_is_gone(command));
    rig_close(&g);
}

/* One that kills its worker, three times. */
static void test_a_command_that_kills_its_worker(void **state) {
    (void)state;
    struct rig g;
    open_rig(&g);
    struct seen s = rig_wait(&g, run_command(&g, "kill -9 $PPID; sleep 1000", ""), TASK_FAILED);
    assert_int_equal(s.deaths, TASK_DEATHS_MAX);
    assert_int_equal(s.attempts, TASK_DEATHS_MAX);
    assert_string_equal(s.error, "its worker was ended by SIGKILL");
    rig_close(&g);
}

/* ---- The server is killed ---- */
#define SERVER_COMMAND "server-to-be-killed"

/* Runs a command with a stray until it is killed; says its directory. */
NORETURN static void be_server(void) {
    struct rig g;
    open_rig(&g);
    (void)run_with_strays(&g, "sleep 1000");
    (void)wait_for_pid(&g, "main");
    printf("%s\n", g.directory);
    fflush(stdout);
    for (;;)
        pause();
}

static pid_t start_server(char *directory, size_t size) {
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    pid_t server = fork();
    if (server == 0) {
        if (dup2(fds[1], 1) == 1 && close(fds[0]) == 0 && close(fds[1]) == 0)
            execl("/proc/self/exe", "test", SERVER_COMMAND, (char *)NULL);
        _exit(1);
    }
    assert_true(server > 0);
    (void)close(fds[1]);
    FILE *said = fdopen(fds[0], "r");
    assert_true(said && fgets(directory, (int)size, said));
    directory[strcspn(directory, "\n")] = '\0';
    fclose(said);
    return server;
}

static bool is_reaped(pid_t pid) {
    (void)waitpid(-1, NULL, WNOHANG); /* its orphans are ours now */
    return process_is_gone(pid);
}

static void test_the_server_is_killed(void **state) {
    (void)state;
    struct rig g = {0}; /* only for its directory */
    assert_int_equal(child_adopt_strays(), 0);
    pid_t server = start_server(g.directory, sizeof g.directory);
    pid_t stray = wait_for_pid(&g, "stray"), command = wait_for_pid(&g, "main");
    assert_false(process_is_gone(stray) || process_is_gone(command));
    assert_int_equal(kill(server, SIGKILL), 0);
    WAIT_FOR(is_reaped(server) && is_reaped(command) && is_reaped(stray));
    rig_remove(&g);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_arguments_and_results),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_ends),
        cmocka_unit_test(test_memory_is_limited),
        cmocka_unit_test(test_floods_are_bounded),
        cmocka_unit_test(test_cancelled_with_its_children),
        cmocka_unit_test(test_what_it_leaves_is_killed),
        cmocka_unit_test(test_its_worker_is_killed),
        cmocka_unit_test(test_a_command_that_kills_its_worker),
        cmocka_unit_test(test_the_server_is_killed),
    };
    if (argc > 1 && strcmp(argv[1], SERVER_COMMAND) == 0)
        be_server();
    return rig_main(argc, argv, tests, ARRAY_LENGTH(tests));
}
