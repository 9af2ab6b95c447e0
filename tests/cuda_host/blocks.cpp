/* blocks.cpp: how the emulator runs the blocks of a kernel: threads are fibers of the calling thread, which change hands at
 * barriers and warp exchanges.
 *
 * Owns the order in which blocks, warps and lanes get their turn: another one each time, chosen by STEERD_EMULATOR_SEED (1 by
 * default, 0: ascending), since a device promises none; and blocks that begin before the grid before them has ended. Ends the program with the kernel's name where threads wait in a way
 * that a device does not allow. Knows nothing of streams and memory. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <vector>

#include "emulator.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

/* All `__shared__` variables of all kernels; of no kernel's at all where there is none. */
extern "C" {
extern unsigned char __start_emulated_shared[] __attribute__((weak, visibility("hidden")));
extern unsigned char __stop_emulated_shared[] __attribute__((weak, visibility("hidden")));
/* Those of templates (shared.ld). */
extern unsigned char emulated_templates_begin[] __attribute__((visibility("hidden")));
extern unsigned char emulated_templates_end[] __attribute__((visibility("hidden")));
}

namespace emulated {
place *here;
dim3 block_index, block_size, grid_size;
unsigned char *dynamic_shared;

#define STACK_BYTES ((size_t)96 << 10)
#define MAX_WARPS (MAX_THREADS / 32)

struct fiber {
  place at;
  int index;
  void *sp; /* where the quick switch left it */
  unsigned char *stack;
  void *fake;
#if !defined(__x86_64__)
  ucontext_t context;
#endif
};

/* Lanes are bits. A lane is ready, waits for its warp or waits for its block; one that is none of these has ended. */
struct warp {
  uint64_t value[2][32];
  unsigned ready, at_warp, at_block, at_grid, arrived, mask, ended;
  int turn, line;
};

/* A block on its way: what its threads see is put in place when it goes on. */
struct scene {
  const kernel_call *call; /* NULL: there is none */
  uint64_t place;          /* which block of the grid */
  fiber *fibers;
  warp warps[MAX_WARPS];
  int n_threads, n_warps, n_live, n_at_block, barrier_line;
  unsigned char *dynamic_shared;
  std::vector<unsigned char> statics; /* of a block that waits for the grid before */
  bool early;
};

static scene usual, ahead; /* ahead: the block that began before its turn */
static scene *now = &usual;
static fiber *current;

const char *running_kernel() { return now->call ? now->call->name : nullptr; }

void fail(const char *what, int line, int other) {
  fprintf(stderr, "emulated CUDA: %s, block %u %u %u of a grid of %u %u %u, thread %u: %s", now->call->name, block_index.x, block_index.y,
          block_index.z, grid_size.x, grid_size.y, grid_size.z, here ? here->thread.x : 0, what);
  if (line) fprintf(stderr, " (line %d%s", line, other ? "" : ")");
  if (other) fprintf(stderr, " and line %d)", other);
  fputc('\n', stderr);
  abort();
}

/* ---- the order ------------------------------------------------------------------------------------------------- */

static uint64_t dice;
static bool ordered, seeded;

static void seed_once() {
  if (seeded) return;
  const char *seed = getenv("STEERD_EMULATOR_SEED");
  uint64_t number = seed ? strtoull(seed, nullptr, 0) : 1;
  ordered = number == 0;
  dice = number * 0x9E3779B97F4A7C15u + 1;
  seeded = true;
}

bool in_order() {
  seed_once();
  return ordered;
}

unsigned below(unsigned n) {
  seed_once();
  if (ordered || n < 2) return 0;
  dice ^= dice << 13, dice ^= dice >> 7, dice ^= dice << 17;
  return (unsigned)((dice >> 32) * n >> 32);
}

/* A lane of the set: the first at or above some place, or the last below it. */
static inline int pick(unsigned set) {
  if (ordered) return __builtin_ctz(set);
  dice ^= dice << 13, dice ^= dice >> 7, dice ^= dice << 17;
  unsigned upper = set & ~0u << (dice >> 32 & 31);
  return upper ? __builtin_ctz(upper) : 31 - __builtin_clz(set);
}

/* ---- fibers ----------------------------------------------------------------------------------------------------- */

#if defined(__x86_64__)
/* Changes stacks: a call of a plain function that keeps what the ABI says a callee keeps. */
extern "C" void cuda_emulated_switch(void **from, void *to);
__asm__(".text\n.globl cuda_emulated_switch\n.hidden cuda_emulated_switch\ncuda_emulated_switch:\n"
        "push %rbp\npush %rbx\npush %r12\npush %r13\npush %r14\npush %r15\n"
        "mov %rsp,(%rdi)\nmov %rsi,%rsp\n"
        "pop %r15\npop %r14\npop %r13\npop %r12\npop %rbx\npop %rbp\nret\n");
static void *scheduler_sp;
#endif
#if !defined(__x86_64__)
static ucontext_t scheduler;
#endif
#if defined(__SANITIZE_ADDRESS__)
static void *scheduler_fake;
static const void *scheduler_stack;
static size_t scheduler_stack_bytes;
#endif

/* The quick switch takes a lane of the same warp straight to the next, without the scheduler between them. */
#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__)
#define STRAIGHT_ON 1
#else
#define STRAIGHT_ON 0
#endif

static unsigned turns; /* that lanes of the warp have before it lets others go on */

/* The lane whose turn it is, or NULL where all wait for others or other warps have to go on. */
static fiber *next_of(warp *w) {
  if (!w->ready || (!ordered && !turns)) return nullptr;
  turns--;
  int next = pick(w->ready);
  w->ready &= ~(1u << next);
  return &now->fibers[32 * (w - now->warps) + next];
}

static void has_turn(fiber *next) {
  current = next;
  here = &next->at;
  thread_goes_on(next->index, next->stack, STACK_BYTES);
}

static void leave(bool forever) {
  fiber *self = current;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(forever ? nullptr : &self->fake, scheduler_stack, scheduler_stack_bytes);
#else
  (void)forever;
#endif
#if defined(__x86_64__)
  fiber *next = STRAIGHT_ON ? next_of(&now->warps[self->index / 32]) : nullptr;
  if (next) has_turn(next);
  cuda_emulated_switch(&self->sp, next ? next->sp : scheduler_sp);
#else
  swapcontext(&self->context, &scheduler);
#endif
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(self->fake, &scheduler_stack, &scheduler_stack_bytes);
#endif
}

static void enter(fiber *next) {
  has_turn(next);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&scheduler_fake, next->stack, STACK_BYTES);
#endif
#if defined(__x86_64__)
  cuda_emulated_switch(&scheduler_sp, next->sp);
#else
  swapcontext(&scheduler, &next->context);
#endif
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(scheduler_fake, nullptr, nullptr);
#endif
}

static void release_block() {
  if (!now->n_live || now->n_at_block < now->n_live) return;
  block_joined();
  for (int i = 0; i < now->n_warps; i++) {
    now->warps[i].ready |= now->warps[i].at_block;
    now->warps[i].at_block = 0;
  }
  now->n_at_block = 0;
}

static warp *own_warp() { return &now->warps[current->index / 32]; }
static unsigned own_bit() { return 1u << (current->index & 31); }

static void thread_main() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack, &scheduler_stack_bytes);
#endif
  now->call->thread();
  if (!here->followed) fail("a thread ends that has not waited for the grid before (grid_follow)", 0, 0);
  thread_ends(here->copies.size());
  now->n_live--;
  own_warp()->ended |= own_bit();
  release_block();
  leave(true);
}

int lane() { return current->index & 31; }

void misaligned(const void *at, size_t bytes) {
  fprintf(stderr, "%zu bytes read at %p: ", bytes, at);
  fail("a read that is not aligned", 0, 0);
}

void wait_grid() {
  if (now->early) {
    own_warp()->at_grid |= own_bit();
    leave(false);
  }
  here->followed = true;
}

void wait_block(int line) {
  warp *w = own_warp();
  unsigned own = own_bit();
  if (!now->n_at_block) now->barrier_line = line;
  if (now->barrier_line != line) fail("threads of a block wait at different barriers", now->barrier_line, line);
  w->at_block |= own;
  now->n_at_block++;
  release_block();
  if (w->ready & own)
    w->ready &= ~own; /* the last to come goes on at once */
  else
    leave(false);
}

const uint64_t *exchange(unsigned mask, uint64_t bits, int line, bool orders, void (*work)(const uint64_t *)) {
  int own = current->index & 31, turn;
  warp *w = own_warp();
  if (!(mask >> own & 1)) fail("a lane takes part in an exchange that does not name it", line, 0);
  if (mask & w->ended) fail("an exchange names lanes that have returned", line, 0);
  if (!w->arrived) w->mask = mask, w->line = line;
  if (w->mask != mask) fail("lanes of a warp name different lanes", w->line, line);
  if (w->line != line) fail("lanes of a warp are in different exchanges", w->line, line);
  turn = w->turn;
  w->value[turn][own] = bits;
  w->arrived |= 1u << own;
  if (w->arrived == mask) {
    if (orders) warp_joined(current->index / 32, mask);
    if (work) work(w->value[turn]);
    w->arrived = 0;
    w->turn ^= 1;
    w->ready |= w->at_warp;
    w->at_warp = 0;
  } else {
    w->at_warp |= 1u << own;
    leave(false);
  }
  return w->value[turn]; /* the other turn is written next, and this one not before every lane has been there */
}

static void make_ready(int index) {
  fiber *f = &now->fibers[index];
  if (!f->stack) f->stack = (unsigned char *)mmap(nullptr, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
#if defined(__SANITIZE_ADDRESS__)
  ASAN_UNPOISON_MEMORY_REGION(f->stack, STACK_BYTES); /* a block that was given up has not left its frames */
#endif
  f->at.thread.x = (unsigned)index % block_size.x;
  f->at.thread.y = (unsigned)index / block_size.x % block_size.y;
  f->at.thread.z = (unsigned)index / block_size.x / block_size.y;
  f->at.followed = false;
  f->at.copies.clear();
  f->at.groups = 0;
  f->index = index;
  now->warps[index / 32].ready |= 1u << (index & 31);
#if defined(__SANITIZE_ADDRESS__)
  __asan_unpoison_memory_region(f->stack, STACK_BYTES); /* what the last thread on it left: its first frames never return */
#endif
#if defined(__x86_64__)
  /* Frames of neighbours begin in other lines of a cache: stacks alone are a whole number of pages apart. */
  void **top = (void **)(void *)(f->stack + STACK_BYTES - (size_t)(index * 5 % 64) * 64);
  *--top = nullptr; /* where a caller of thread_main would be; keeps its stack aligned */
  *--top = (void *)thread_main;
  f->sp = top - 6;
#else
  getcontext(&f->context);
  f->context.uc_stack.ss_sp = f->stack;
  f->context.uc_stack.ss_size = STACK_BYTES;
  f->context.uc_link = nullptr;
  makecontext(&f->context, thread_main, 0);
#endif
}

/* Lanes of a warp take turns until all of them wait for others, or the warp has to let others go on. */
static bool run_warp(warp *w) {
  bool moved = w->ready != 0;
  turns = 32 + below(512);
  for (fiber *next; (next = next_of(w));) enter(next);
  return moved;
}

/* ---- blocks ----------------------------------------------------------------------------------------------------- */

static void say_stuck() {
  for (int i = 0; i < now->n_warps; i++)
    if (now->warps[i].arrived) {
      here = &now->fibers[32 * i + __builtin_ctz(now->warps[i].arrived)].at;
      fail("a warp waits for lanes that wait elsewhere", now->warps[i].line, 0);
    }
  fail("its threads wait for one another for ever", now->n_at_block ? now->barrier_line : 0, 0);
}

static bool waits_for_grid() {
  for (int i = 0; i < now->n_warps; i++)
    if (now->warps[i].at_grid) return true;
  return false;
}

/* Until all threads have ended, or wait for the grid before. */
static void go_on() {
  unsigned n = (unsigned)now->n_warps;
  while (now->n_live) {
    bool moved = false;
    unsigned first = below(n), down = below(2);
    for (unsigned i = 0; i < n; i++) {
      unsigned next = (first + (down ? n - i : i)) % n;
      moved |= run_warp(&now->warps[next]);
    }
    if (!moved && waits_for_grid()) return;
    if (!moved) say_stuck();
  }
}

/* Byte by byte where a sanitizer has put space between variables that nobody may touch. */
static __attribute__((no_sanitize("address"))) void fill(unsigned char *at, const unsigned char *end) {
#if defined(__SANITIZE_ADDRESS__)
  while (at < end) *(volatile unsigned char *)at++ = 0xFF;
#else
  memset(at, 0xFF, (size_t)(end - at));
#endif
}
static __attribute__((no_sanitize("address"))) unsigned char *copied(unsigned char *to, const unsigned char *from, size_t bytes) {
#if defined(__SANITIZE_ADDRESS__)
  for (size_t i = 0; i < bytes; i++) ((volatile unsigned char *)to)[i] = from[i];
#else
  memcpy(to, from, bytes);
#endif
  return to + bytes;
}

/* Both kinds of `__shared__` variables; kernels of nvcc have theirs beside what the launch gives. */
static const size_t plain_bytes = translate ? 0 : (size_t)(__stop_emulated_shared - __start_emulated_shared);
static const size_t template_bytes = translate ? 0 : (size_t)(emulated_templates_end - emulated_templates_begin);
static void save_statics(std::vector<unsigned char> *to) {
  to->resize(plain_bytes + template_bytes);
  copied(copied(to->data(), __start_emulated_shared, plain_bytes), emulated_templates_begin, template_bytes);
}
static void put_statics_back(const std::vector<unsigned char> &from) {
  copied(__start_emulated_shared, from.data(), plain_bytes);
  copied(emulated_templates_begin, from.data() + plain_bytes, template_bytes);
}

static size_t shared_bytes(const kernel_call &call) { return (call.shared + 64) / 64 * 64; }

/* Puts in place what the threads of the scene see. */
static void show(scene *s) {
  const kernel_call &call = *s->call;
  now = s;
  block_size = call.block;
  grid_size = call.grid;
  block_index = dim3((unsigned)(s->place % call.grid.x), (unsigned)(s->place / call.grid.x % call.grid.y),
                     (unsigned)(s->place / call.grid.x / call.grid.y));
  dynamic_shared = s->dynamic_shared;
  block_goes_on(s == &ahead);
}

static void set_scene(scene *s, const kernel_call *call) {
  if (!s->fibers) s->fibers = new fiber[MAX_THREADS]();
  free(s->dynamic_shared);
  s->call = call;
  s->early = false;
  s->dynamic_shared = (unsigned char *)aligned_alloc(64, shared_bytes(*call));
}

/* What shared memory holds before a block writes it is what another left there: here, NaN. */
static void begin_block(scene *s, uint64_t place) {
  s->place = place;
  show(s);
  memset(dynamic_shared, 0xFF, shared_bytes(*s->call));
  fill(__start_emulated_shared, __start_emulated_shared + plain_bytes);
  if (below(16) == 0) fill(emulated_templates_begin, emulated_templates_begin + template_bytes); /* a megabyte */
  memset(s->warps, 0, sizeof s->warps);
  s->n_live = s->n_threads = (int)(block_size.x * block_size.y * block_size.z);
  s->n_warps = (s->n_threads + 31) / 32;
  s->n_at_block = 0;
  block_begins(s == &ahead, place, s->n_threads, dynamic_shared, shared_bytes(*s->call));
  for (int i = 0; i < s->n_threads; i++) make_ready(i);
  if (s->n_threads % 32) s->warps[s->n_warps - 1].ended = ~0u << s->n_threads % 32;
}

/* The block that began early may go on: the grid before has ended. */
static void resume() {
  show(&ahead);
  ahead.early = false;
  block_has_turn();
  put_statics_back(ahead.statics);
  for (int i = 0; i < ahead.n_warps; i++) {
    ahead.warps[i].ready |= ahead.warps[i].at_grid;
    ahead.warps[i].at_grid = 0;
  }
  go_on();
  ahead.call = nullptr;
  now = &usual;
}

static uint64_t common_divisor(uint64_t a, uint64_t b) { return b ? common_divisor(b, a % b) : a; }

static uint64_t blocks_of(const kernel_call &call) { return (uint64_t)call.grid.x * call.grid.y * call.grid.z; }
static uint64_t some_block(uint64_t all) { return below((unsigned)(all < 1u << 30 ? all : 1u << 30)); }

/* Runs one block of a grid whose turn has not come to where it waits for the grid before it. What it reads until then is what
 * it will have when its turn has come. */
void begin_early(const kernel_call &call) {
  set_scene(&ahead, &call);
  ahead.early = true;
  begin_block(&ahead, some_block(blocks_of(call)));
  go_on();
  save_statics(&ahead.statics);
  now = &usual;
  here = nullptr;
}

void give_up(const kernel_call &call) {
  if (ahead.call == &call) ahead.call = nullptr;
}

/* Blocks at every `stride`-th place, around and around, come to each place once. */
void run_grid(const kernel_call &call) {
  uint64_t all = blocks_of(call), stride = 1 + below(1u << 20), at = some_block(all);
  bool begun = ahead.call == &call;
  set_scene(&usual, &call);
  grid_begins(call);
  while (common_divisor(stride, all) != 1) stride++;
  for (uint64_t i = 0; i < all; i++, at = (at + stride) % all) {
    if (begun && at == ahead.place) {
      resume();
      begun = false;
      continue;
    }
    begin_block(&usual, at);
    go_on();
    if (usual.n_live) say_stuck();
  }
  usual.call = nullptr;
  here = nullptr;
  grid_ends();
}
} // namespace emulated
