/* Memory for keys and values: how much is chosen, how little will do, and what the system is asked. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/base/room.h"
#include "core/engine/kv.h"

#define MIB ((size_t)1 << 20)
#define GIB ((size_t)1 << 30)

static struct backend *backend;

static int open_backend(void **state) {
  (void)state;
  backend = backend_open("cpu", 1, NULL);
  return backend ? 0 : -1;
}

static int close_backend(void **state) {
  (void)state;
  backend_close(backend);
  return 0;
}

/* What a pool is measured by: dimensions, and the type of the matrices that make keys and values. */
struct shape {
  struct matrix qkv;
  struct weight_set layer;
  struct model model;
};

static const struct model *shaped(struct shape *shape, struct arch arch) {
  shape->qkv.dtype = DTYPE_BF16; /* the processor keeps f32 all the same */
  shape->layer.matrix[SLOT_QKV] = &shape->qkv;
  shape->model = (struct model){.arch = arch, .weights = {.layers = &shape->layer}, .backend = backend};
  return &shape->model;
}

static const struct arch llama8 = {.n_layer = 32, .n_head = 32, .n_kv_head = 8, .d_head = 128, .d_model = 4096, .n_ctx = 131072};
static const struct arch gpt2 = {.n_layer = 12, .n_head = 12, .n_kv_head = 12, .d_head = 64, .d_model = 768, .n_ctx = 1024};

static void test_choice(void **state) {
  (void)state;
  struct shape shapes[2] = {0};
  const struct model *large = shaped(&shapes[0], llama8), *small = shaped(&shapes[1], gpt2);
  size_t one = kv_sequence_bytes(large, large->arch.n_ctx);
  /* 2 x 32 layers x 8 heads x 128 columns x 4 bytes x 131072 positions, and what blocks keep beside them */
  assert_in_range(one, 32 * GIB, 36 * GIB);
  assert_int_equal(kv_pool_choose(large, SIZE_MAX), one);
  assert_int_equal(kv_pool_choose(large, 10 * GIB), 10 * GIB);
  assert_int_equal(kv_pool_choose(small, SIZE_MAX), 8 * kv_sequence_bytes(small, small->arch.n_ctx));
  assert_int_equal(kv_pool_choose(small, 100 * MIB), 100 * MIB);
  size_t least = kv_pool_choose(large, 0);
  assert_int_equal(least, 2 * kv_sequence_bytes(large, 256)); /* two short texts, whatever is left */
  shapes[1].model.arch.n_ctx = 32;
  assert_int_equal(kv_pool_choose(small, SIZE_MAX), 64 * MIB);
}

static void test_less_than_a_context(void **state) {
  (void)state;
  struct shape shape = {0};
  const struct model *model = shaped(&shape, gpt2);
  struct error error = ERROR_INIT;
  size_t least = kv_pool_choose(model, 0);
  struct kv_pool *pool = kv_pool_new(model, least, &error);
  assert_non_null(pool);
  assert_int_equal(kv_pool_positions(pool), 512);
  int32_t taken = 0;
  while (kv_block_take(pool) >= 0) taken++;
  assert_int_equal(taken, 12 * 512 / 64);
  kv_pool_free(pool);
  assert_null(kv_pool_new(model, least - 1, &error));
  assert_int_equal(error.code, ERROR_LIMIT);
  assert_non_null(strstr(error.text, "two short texts need"));
}

/* ---- what the system tells ---- */

static char root[64];

static void put_file(const char *path, const char *text) {
  char whole[256];
  snprintf(whole, sizeof whole, "%s%s", root, path);
  for (char *slash = whole + strlen(root) + 1; (slash = strchr(slash, '/')); *slash++ = '/') {
    *slash = '\0';
    mkdir(whole, 0700);
  }
  FILE *file = fopen(whole, "w");
  assert_non_null(file);
  fputs(text, file);
  fclose(file);
}

static void test_room(void **state) {
  (void)state;
  snprintf(root, sizeof root, "/tmp/steerd-room-XXXXXX");
  assert_non_null(mkdtemp(root));
  assert_int_equal(memory_room(root), SIZE_MAX); /* nothing tells */
  put_file("/proc/meminfo", "MemTotal: 900 kB\nMemAvailable:   8000 kB\nCommitLimit: 5000 kB\nCommitted_AS: 2000 kB\n");
  assert_int_equal(memory_room(root), 8000 * 1024);
  put_file("/proc/sys/vm/overcommit_memory", "0\n");
  assert_int_equal(memory_room(root), 8000 * 1024);
  put_file("/proc/sys/vm/overcommit_memory", "2\n");
  assert_int_equal(memory_room(root), 3000 * 1024);
  put_file("/proc/self/cgroup", "1:name=old:/elsewhere\n0::/system.slice/steerd.service\n");
  put_file("/sys/fs/cgroup/system.slice/steerd.service/memory.max", "max\n");
  assert_int_equal(memory_room(root), 3000 * 1024);
  put_file("/sys/fs/cgroup/system.slice/memory.max", "1000000\n"); /* of a group above */
  assert_int_equal(memory_room(root), 1000000);
  put_file("/sys/fs/cgroup/system.slice/memory.stat", "file 900000\nanon 400000\n");
  assert_int_equal(memory_room(root), 600000);
  put_file("/sys/fs/cgroup/system.slice/steerd.service/memory.max", "70000\n");
  put_file("/sys/fs/cgroup/system.slice/steerd.service/memory.stat", "anon 80000\n"); /* over its limit: nothing is left */
  assert_int_equal(memory_room(root), 0);

  assert_int_equal(processor_room(root), SIZE_MAX); /* nothing tells */
  put_file("/sys/fs/cgroup/system.slice/steerd.service/cpu.max", "max 100000\n");
  assert_int_equal(processor_room(root), SIZE_MAX);
  put_file("/sys/fs/cgroup/system.slice/cpu.max", "650000 100000\n"); /* of a group above, in whole processors */
  assert_int_equal(processor_room(root), 6);
  put_file("/sys/fs/cgroup/system.slice/steerd.service/cpu.max", "20000 50000\n"); /* less than one is one */
  assert_int_equal(processor_room(root), 1);
  put_file("/sys/fs/cgroup/system.slice/steerd.service/cpu.max", "150000 0\n"); /* no kernel says so */
  assert_int_equal(processor_room(root), 6);
  char clean[128];
  snprintf(clean, sizeof clean, "rm -r %s", root);
  assert_int_equal(system(clean), 0);
}

/* In a child, whose limits are its own: 64 MiB more than it has of field `field` of /proc/self/statm. */
static int room_under(int resource, int field) {
  pid_t child = fork();
  if (child == 0) {
    unsigned long pages[6];
    FILE *file = fopen("/proc/self/statm", "r");
    for (int i = 0; i < 6; i++)
      if (!file || fscanf(file, "%lu", &pages[i]) != 1) _exit(2);
    fclose(file);
    rlim_t most = (rlim_t)pages[field] * (rlim_t)sysconf(_SC_PAGESIZE) + 64 * MIB;
    struct rlimit limit = {most, most};
    if (setrlimit(resource, &limit) != 0) _exit(3);
    size_t room = memory_room("");
    _exit(room > 32 * MIB && room <= 64 * MIB ? 0 : 1);
  }
  int status = 0;
  assert_int_equal(waitpid(child, &status, 0), child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void test_limits(void **state) {
  (void)state;
  assert_int_equal(room_under(RLIMIT_AS, 0), 0);
  assert_int_equal(room_under(RLIMIT_DATA, 5), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_choice), cmocka_unit_test(test_less_than_a_context),
      cmocka_unit_test(test_room),   cmocka_unit_test(test_limits),
  };
  return cmocka_run_group_tests(tests, open_backend, close_backend);
}
