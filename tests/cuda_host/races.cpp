/* races.cpp: finds accesses of a kernel that nothing puts in an order. Built into the emulator for `make racecheck` alone.
 *
 * Kernels are compiled with gcc's -fsanitize=thread and linked with the functions below in the place of its library: each read
 * and write of a kernel comes here. For each word of shared and device memory it is kept who wrote and read it last; whoever comes
 * next must be ordered behind those by what a device promises, whatever order the emulator happened to take:
 *
 *  - of a block: __syncthreads orders all its threads, __syncwarp the lanes that it names. Shuffles, votes and products of a warp
 *    order nothing: CUDA's manual says that they imply no memory barrier. Lanes of a warp do not run in step.
 *  - of a grid: a __threadfence, then an atomic; an atomic that reads what that one left, then a __threadfence. What a thread has
 *    seen, by barriers or so, it hands on (PTX: causality order). __threadfence is fence.sc, so the thread that fences and the one that counts may
 *    be two with a barrier between them, on either side. Atomics of one word are in no conflict with each other.
 *  - copies that are not waited for (cp.async): nobody may touch where they go until their thread has waited; others need a
 *    barrier more.
 *  - a kernel that may begin early (grid_follow) writes nothing before it has waited, and reads nothing that a kernel wrote since
 *    its stream last did something else.
 *
 *  - a write of what was there already disturbs nobody: writers of one value need no order. (All blocks that share a KV head keep its new key
 *    themselves, before they read it: the same bits.)
 *
 * What is read must have been written: shared memory by the block, device memory by anybody since it was taken.
 *
 * An atomic has observed those before it at its place, so whoever is behind it is behind them (PTX: observation order).
 *
 * Two writers and two readers are kept of a word, of other warps or blocks where there are any: one of them is enough to find
 * a race by, and two are enough that it is not always one's own. So a report is a race, but for what a barrier of a third kind would order
 * (there are none here); a race of more than two readers with partial orders may be missed. Other streams are not looked at. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "emulator.h"

extern "C" {
extern unsigned char __start_emulated_shared[] __attribute__((weak, visibility("hidden")));
extern unsigned char __stop_emulated_shared[] __attribute__((weak, visibility("hidden")));
extern unsigned char emulated_templates_begin[] __attribute__((visibility("hidden")));
extern unsigned char emulated_templates_end[] __attribute__((visibility("hidden")));
}

namespace {
using emulated::kernel_call;

/* ---- what is kept of a word --------------------------------------------------------------------------------------------- */

enum { PLAIN, ATOMIC, COPIED };

/* when: barriers of the block, then steps of the lane since the last of them. */
struct access {
  uint32_t block, when, place; /* place: in the library's code */
  uint16_t thread;
  uint8_t bytes, kind; /* bytes: a bit for each of the word's; 0: nobody */
};

struct word {
  uint32_t stamp;                /* of the grid or block that the rest is about */
  uint32_t kernel, kernel_place; /* the grid that wrote it last, and where */
  uint8_t written, flying;       /* bytes: of shared memory that the block wrote; that a copy is on its way to */
  access write[2], read[2];
};

#define PAGE ((uintptr_t)4096)
#define PAGE_WORDS (PAGE / 4)

struct page {
  uint8_t written[PAGE / 8]; /* bits: bytes that somebody wrote since it was taken */
  word *words;
};

struct region {
  size_t bytes;
  bool locked; /* by the host, whose writes are not seen */
};

std::mutex guard; /* of what allocations change; kernels run on one thread at a time */
std::unordered_map<uintptr_t, page *> &pages = *new std::unordered_map<uintptr_t, page *>();
std::map<uintptr_t, region> &regions = *new std::map<uintptr_t, region>();
unsigned volatile changes; /* of regions */

/* Pages that were looked up; those that are nobody's too. */
#define CACHED 8192
struct cached_page {
  uintptr_t number;
  page *what;
} cache[CACHED];
unsigned cache_of = ~0u; /* changes */

/* ---- who knows what --------------------------------------------------------------------------------------------------------- */

/* By block: what has been seen of each of its threads. Blocks that are not in it: nothing. */
typedef std::unordered_map<uint32_t, std::vector<uint32_t>> knowledge;

void add(knowledge &to, const knowledge &from) {
  for (auto &block : from) {
    std::vector<uint32_t> &own = to[block.first];
    if (own.size() < block.second.size()) own.resize(block.second.size());
    for (size_t i = 0; i < block.second.size(); i++) own[i] = std::max(own[i], block.second[i]);
  }
}

/* Of a thread, or of a whole block: what atomics told and no fence stands behind; what is known; what was known at the last
 * fence, which is what an atomic hands on. */
struct memory_view {
  knowledge told, known, fenced;
  bool empty() const { return told.empty() && known.empty() && fenced.empty(); }
};
void add(memory_view &to, const memory_view &from) {
  add(to.told, from.told);
  add(to.known, from.known);
  add(to.fenced, from.fenced);
}

struct early_access {
  uintptr_t at;
  access mine;
};

/* A block on its way. */
struct block_state {
  uint32_t number, stamp, epoch;
  int n_threads;
  uintptr_t dynamic;
  size_t dynamic_bytes;
  uint16_t seen[32][32][32];       /* of a warp's lanes: steps that a lane has seen of another since the last barrier */
  memory_view common;              /* what all its threads have */
  std::unordered_map<int, memory_view> own; /* what some have beside it */
  std::vector<word> shared[3];     /* static, of templates, dynamic */
  bool early;
  std::vector<early_access> before; /* of an early block: reads of device memory before its turn */
};
block_state states[2], *block = states;
int thread;
uintptr_t stack_begin;
size_t stack_bytes;

/* ---- grids --------------------------------------------------------------------------------------------------------------------- */

const kernel_call *call;
std::vector<const void *> &stream_of = *new std::vector<const void *>(1, nullptr); /* by number of the grid; 0 is none */
std::unordered_map<const void *, uint32_t> &line = *new std::unordered_map<const void *, uint32_t>(); /* first grid of a stream since it did something else; 0: none */
const void *stream;
uint32_t grid, line_begin, stamps; /* line_begin: of the stream whose grid it is */
std::unordered_map<uintptr_t, knowledge> &told_at = *new std::unordered_map<uintptr_t, knowledge>(); /* by atomics, at a place */

/* ---- reports ------------------------------------------------------------------------------------------------------------------ */

struct report {
  std::string kernel, what;
  uint32_t first, second;
  bool operator==(const report &other) const { return what == other.what && first == other.first && second == other.second; }
};
std::vector<report> &reports = *new std::vector<report>();
size_t n_reports;
#define MOST_REPORTS 40

uintptr_t library_base() {
  static uintptr_t base;
  Dl_info info;
  if (!base && dladdr((void *)library_base, &info)) base = (uintptr_t)info.dli_fbase;
  return base;
}
const char *library_name() {
  Dl_info info;
  return dladdr((void *)library_base, &info) ? info.dli_fname : "?";
}
uint32_t place_of(void *caller) { return (uint32_t)((uintptr_t)caller - 1 - library_base()); }

/* "file:line, called from file:line ..." as far as functions were inlined. */
std::string source_of(uint32_t place) {
  char command[4200], text[1024];
  std::string all;
  if (!place) return "?";
  snprintf(command, sizeof command, "addr2line -i -e '%s' 0x%x 2>/dev/null", library_name(), place);
  FILE *from = popen(command, "r");
  while (from && fgets(text, sizeof text, from)) {
    text[strcspn(text, "\n")] = 0;
    text[strcspn(text, " ")] = 0; /* "(discriminator n)" */
    const char *name = strstr(text, "core/math/cuda/");
    if (!name) name = strrchr(text, '/') ? strrchr(text, '/') + 1 : text;
    if (strncmp(name, "cuda_runtime.h", 14) == 0 || strncmp(name, "ptx.h", 5) == 0) continue;
    all += (all.empty() ? "" : " < ") + std::string(name[0] == 'c' && strncmp(name, "core/math/cuda/", 15) == 0 ? name + 15 : name);
  }
  if (from) pclose(from);
  return all;
}

/* A kernel is known by its arguments: what stands behind "A = ". */
std::string short_name(const std::string &name) {
  size_t begin = name.find("A = "), end = name.find(';', begin);
  return begin == std::string::npos ? name : "a kernel of " + name.substr(begin + 4, end == std::string::npos ? end : end - begin - 4);
}

void say(const report &r) {
  std::string first = source_of(r.first), second = source_of(r.second);
  fprintf(stderr, "emulated CUDA: race: %s\n  %s\n  at %s\n", short_name(r.kernel).c_str(), r.what.c_str(), second.c_str());
  if (r.first) fprintf(stderr, "  before: %s\n", first.c_str());
}

bool goes_on() {
  static const bool on = getenv("STEERD_RACES_GO_ON") != nullptr;
  return on;
}

const char *name_of(const access &a, bool writes) {
  return a.kind == ATOMIC ? "an atomic" : a.kind == COPIED ? "a copy" : writes ? "a write" : "a read";
}
std::string of(const access &a) {
  char text[80];
  snprintf(text, sizeof text, "thread %u of block %u", a.thread, a.block);
  return text;
}

void found(const char *what, const access &mine, bool writes, const access *other, bool other_writes, bool is_shared) {
  std::string text = std::string(name_of(mine, writes)) + " of " + (is_shared ? "shared" : "device") + " memory by " + of(mine);
  if (other) text += ", behind " + std::string(name_of(*other, other_writes)) + " by " + of(*other);
  report r = {call ? call->name : "?", text + ": " + what, other ? other->place : 0, mine.place};
  n_reports++;
  for (auto &known : reports)
    if (known.first == r.first && known.second == r.second) return;
  if (reports.size() < MOST_REPORTS) {
    reports.push_back(r);
    if (goes_on()) say(r);
  }
}

void end_if_found() {
  if (reports.empty() || goes_on()) return;
  for (auto &r : reports) say(r);
  abort();
}

struct last_word {
  ~last_word() {
    if (!n_reports) return;
    fprintf(stderr, "emulated CUDA: %zu races, at %zu pairs of places\n", n_reports, reports.size());
    _Exit(66);
  }
} at_the_end;

/* ---- order -------------------------------------------------------------------------------------------------------------------- */

uint32_t steps(int lane_of) { return block->seen[lane_of / 32][lane_of % 32][lane_of % 32]; }
uint32_t now_of(int number) { return block->epoch << 16 | steps(number); }

bool knows(const knowledge &what, const access &a) {
  auto at = what.find(a.block);
  return at != what.end() && a.thread < at->second.size() && at->second[a.thread] >= a.when;
}

/* What an access did is seen by this thread. */
bool is_before(const access &a) {
  if (a.block == block->number) {
    if (a.thread == thread || a.when >> 16 < block->epoch) return true;
    if (a.thread / 32 == thread / 32 && (a.when & 0xFFFF) <= block->seen[thread / 32][thread % 32][a.thread % 32]) return true;
  }
  if (block->common.known.empty() && block->own.empty()) return false;
  if (knows(block->common.known, a)) return true;
  auto own = block->own.find(thread);
  return own != block->own.end() && knows(own->second.known, a);
}

const char *missing(const access &a) {
  if (a.block != block->number) return "no fence, count and fence between these blocks";
  return a.thread / 32 == thread / 32 ? "no barrier, nor __syncwarp between these lanes" : "no barrier between these warps";
}

/* Whoever is ordered behind `mine` is ordered behind a, which is ordered before `mine`. */
bool stands_for(const access &mine, const access &a) {
  return !(a.bytes & ~mine.bytes) && (mine.kind != ATOMIC || a.kind == ATOMIC);
}

/* How far apart two are: lanes, warps, blocks. */
int distance(const access &a, const access &b) {
  return a.block != b.block ? 3 : a.thread / 32 != b.thread / 32 ? 2 : a.thread != b.thread;
}

void keep(access kept[2], const access &mine) {
  for (int i = 0; i < 2; i++)
    if (!kept[i].bytes || (stands_for(mine, kept[i]) && (distance(kept[i], mine) == 0 || (kept[i].kind == ATOMIC && mine.kind == ATOMIC)))) {
      kept[i] = mine;
      return;
    }
  for (int i = 0; i < 2; i++)
    if (stands_for(mine, kept[i]) && is_before(kept[i])) {
      kept[i] = mine;
      return;
    }
  for (int i = 0; i < 2; i++)
    if (is_before(kept[i])) {
      kept[i] = mine;
      return;
    }
  if (distance(kept[0], mine) > distance(kept[0], kept[1])) kept[1] = mine;
}

/* A write that is in no order with another access is a race when it changes something, which is seen behind it. */
struct unproved {
  word *what;
  uintptr_t at;
  uint32_t was;
  access mine, other;
  bool other_writes, is_shared;
  const char *missing;
};
std::vector<unproved> &unproved_writes = *new std::vector<unproved>();

uint32_t bits_at(uintptr_t at, unsigned bytes) {
  uint32_t bits = 0;
  for (unsigned i = 0; i < 4; i++)
    if (bytes >> i & 1) bits |= (uint32_t)((const unsigned char *)at)[i] << 8 * i;
  return bits;
}

/* `mine`, of the word at `at`, against those that are kept. */
void compare(const access kept[2], bool kept_write, const access &mine, bool writes, bool is_shared, word *w, uintptr_t at) {
  for (int i = 0; i < 2; i++) {
    if (!(kept[i].bytes & mine.bytes) || (kept[i].kind == ATOMIC && mine.kind == ATOMIC) || is_before(kept[i])) continue;
    if (writes && mine.kind == PLAIN)
      unproved_writes.push_back({w, at, bits_at(at, mine.bytes), mine, kept[i], kept_write, is_shared, missing(kept[i])});
    else
      found(missing(kept[i]), mine, writes, &kept[i], kept_write, is_shared);
  }
}

/* The writes that were asked for last have been made. */
void prove_writes() {
  for (auto &u : unproved_writes) {
    if (bits_at(u.at, u.mine.bytes) != u.was) {
      found(u.missing, u.mine, true, &u.other, u.other_writes, u.is_shared);
      continue;
    }
    for (auto &kept : u.what->write) /* of the same value: whoever is behind one of them may be behind either */
      if (!(kept.bytes & ~u.mine.bytes)) kept = u.mine;
  }
  unproved_writes.clear();
}

/* ---- one access ----------------------------------------------------------------------------------------------------------------- */

void clear(word *w, uint32_t stamp) {
  memset(w->write, 0, sizeof w->write);
  memset(w->read, 0, sizeof w->read);
  w->written = w->flying = 0;
  w->stamp = stamp;
}

void touch_word(word *w, uintptr_t at, const access &mine, bool writes, bool is_shared) {
  if (w->flying & mine.bytes) found("a copy is on its way there that nobody has waited for", mine, writes, &w->write[0], true, is_shared);
  if (!writes) {
    for (int i = 0; i < 2; i++) /* again, and nobody wrote since: it would have been compared with this one */
      if (w->read[i].thread == mine.thread && w->read[i].when == mine.when && w->read[i].block == mine.block && w->read[i].bytes == mine.bytes &&
          !w->write[0].bytes)
        return;
    compare(w->write, true, mine, false, is_shared, w, at);
    keep(w->read, mine);
  } else {
    compare(w->write, true, mine, true, is_shared, w, at);
    compare(w->read, false, mine, true, is_shared, w, at);
    keep(w->write, mine);
    w->written |= mine.bytes;
  }
}

/* By a kernel that the one before it may still run beside. */
bool is_ahead() { return call && call->overlaps && !emulated::here->followed; }

/* Who wrote it is a kernel of the same line. */
void compare_early(const word *w, const access &mine) {
  if (w->kernel < line_begin || w->kernel == grid || stream_of[w->kernel] != stream) return;
  report r = {call->name, "read by " + of(mine) + " in front of its wait (grid_follow): a kernel before it writes there", w->kernel_place, mine.place};
  n_reports++;
  if (std::find(reports.begin(), reports.end(), r) != reports.end() || reports.size() >= MOST_REPORTS) return;
  reports.push_back(r);
  if (goes_on()) say(r);
}

/* Of the memory that it lies in, NULL where that is the host's own. Under the guard. */
page *page_of(uintptr_t at) {
  auto known = pages.find(at / PAGE);
  if (known != pages.end()) return known->second;
  auto next = regions.upper_bound(at);
  if (next == regions.begin() || at - (--next)->first >= next->second.bytes) return nullptr;
  page *fresh = (page *)calloc(1, sizeof(page));
  if (next->second.locked) memset(fresh->written, 0xFF, sizeof fresh->written);
  return pages[at / PAGE] = fresh;
}

word *device_word(uintptr_t at, page **in) {
  cached_page *own = &cache[at / PAGE % CACHED];
  if (cache_of != changes) {
    memset(cache, 0, sizeof cache);
    cache_of = changes;
  }
  if (own->number != at / PAGE) {
    std::lock_guard<std::mutex> lock(guard);
    *own = {at / PAGE, page_of(at)};
    if (own->what && !own->what->words) own->what->words = (word *)calloc(PAGE_WORDS, sizeof(word));
  }
  if (!own->what) return nullptr;
  *in = own->what;
  return &own->what->words[at % PAGE / 4];
}

/* `at` lies in a part of shared memory. */
inline word *word_of_part(int part, uintptr_t at, uintptr_t begin, size_t bytes) {
  std::vector<word> &all = block->shared[part];
  if (all.size() < bytes / 4 + 2) all.resize(bytes / 4 + 2);
  word *w = &all[(at - begin) / 4];
  if (w->stamp != block->stamp) clear(w, block->stamp);
  return w;
}

inline word *shared_word(uintptr_t at) {
  uintptr_t plain = (uintptr_t)__start_emulated_shared, templates = (uintptr_t)emulated_templates_begin;
  size_t plain_bytes = (uintptr_t)__stop_emulated_shared - plain, template_bytes = (uintptr_t)emulated_templates_end - templates;
  if (at - plain < plain_bytes) return word_of_part(0, at, plain, plain_bytes);
  if (at - templates < template_bytes) return word_of_part(1, at, templates, template_bytes);
  if (at - block->dynamic < block->dynamic_bytes) return word_of_part(2, at, block->dynamic, block->dynamic_bytes);
  return nullptr;
}

void touch_shared(word *w, uintptr_t at, const access &mine, bool reads, bool writes) {
  if (reads && mine.bytes & ~(w->written | w->flying)) {
    found("nobody in this block wrote it", mine, false, nullptr, false, true);
    w->written |= mine.bytes; /* once is enough */
  }
  touch_word(w, at / 4 * 4, mine, writes, true);
}

void touch_device(word *w, page *in, uintptr_t at, const access &mine, bool reads, bool writes) {
  const uint8_t *piece = &in->written[at % PAGE / 16 * 2]; /* of 16 bytes: rows are read by whole ones */
  if (w->stamp != grid) clear(w, grid);
  if (reads && !piece[0] && !piece[1]) found("nobody wrote it since it was allocated", mine, false, nullptr, false, false);
  in->written[at % PAGE / 8] |= (uint8_t)(mine.bytes << at % 8 / 4 * 4);
  if (is_ahead() && writes) found("in front of its wait (grid_follow), where the kernel before it may read or write", mine, true, nullptr, false, false);
  if (is_ahead() && !writes) compare_early(w, mine);
  touch_word(w, at / 4 * 4, mine, writes, false);
  if (writes) w->kernel = grid, w->kernel_place = mine.place;
}

void touch(const void *address, size_t bytes, bool reads, bool writes, int kind, void *caller) {
  uintptr_t at = (uintptr_t)address, end = at + bytes;
  if ((uintptr_t)__builtin_frame_address(0) - stack_begin >= stack_bytes) return; /* the host */
  if (!unproved_writes.empty()) prove_writes();
  if (at - stack_begin < stack_bytes) return;
  access mine = {block->number, now_of(thread), place_of(caller), (uint16_t)thread, 0, (uint8_t)kind};
  for (uintptr_t next; at < end; at = next) {
    page *in;
    next = std::min(end, at / 4 * 4 + 4);
    mine.bytes = (uint8_t)(((1u << (next - at)) - 1) << at % 4);
    word *w = shared_word(at);
    if (w) {
      touch_shared(w, at, mine, reads, writes);
    } else if (!(w = device_word(at, &in))) {
      return;
    } else if (block->early) {
      if (writes) found("in front of its wait (grid_follow), where the kernel before it may read or write", mine, true, nullptr, false, false);
      else block->before.push_back({at, mine});
    } else {
      touch_device(w, in, at, mine, reads, writes);
    }
  }
}

/* What an atomic hands on is what its thread knew at its last fence; what it is told counts behind its next one. */
void exchange_knowledge(const void *address) {
  uintptr_t at = (uintptr_t)address;
  auto own = block->own.find(thread);
  auto told = told_at.find(at);
  bool has = !block->common.fenced.empty() || (own != block->own.end() && !own->second.fenced.empty());
  if (told != told_at.end()) add(block->own[thread].told, told->second);
  if (!has) return;
  knowledge &here = told_at[at];
  add(here, block->common.fenced);
  if (own != block->own.end()) add(here, own->second.fenced);
}
} // namespace

/* ---- what the emulator says ------------------------------------------------------------------------------------------------------- */

void emulated::accessed_atomically(const void *at, size_t bytes) {
  touch(at, bytes, true, true, ATOMIC, __builtin_return_address(0));
  if ((uintptr_t)__builtin_frame_address(0) - stack_begin < stack_bytes) exchange_knowledge(at);
}
void emulated::was_read(const void *at, size_t bytes) { touch(at, bytes, true, false, PLAIN, __builtin_return_address(0)); }

void emulated::fence_passed() {
  memory_view &own = block->own[thread];
  add(own.known, block->common.told);
  add(own.known, own.told);
  own.told.clear();
  own.fenced = own.known;
  add(own.fenced, block->common.known);
  std::vector<uint32_t> &mine = own.fenced[block->number];
  mine.resize((size_t)block->n_threads);
  for (int i = 0; i < block->n_threads; i++) {
    uint32_t when = block->epoch ? (block->epoch - 1) << 16 | 0xFFFF : 0;
    if (i / 32 == thread / 32) when = block->epoch << 16 | block->seen[i / 32][thread % 32][i % 32];
    mine[(size_t)i] = std::max(mine[(size_t)i], when);
  }
  block->seen[thread / 32][thread % 32][thread % 32]++; /* what it does now comes behind */
}

static void mark_flying(const void *to, bool flies) {
  for (unsigned i = 0; i < 16; i += 4) {
    word *w = shared_word((uintptr_t)to + i);
    if (w) w->flying = flies ? 15 : 0;
  }
}
void emulated::copy_begins(const void *to, const void *from) {
  if (from) touch(from, 16, true, false, COPIED, __builtin_return_address(0));
  touch(to, 16, false, true, COPIED, __builtin_return_address(0));
  mark_flying(to, true);
}
void emulated::copy_ends(const void *to, const void *from) {
  mark_flying(to, false);
  if (from) touch(from, 16, true, false, COPIED, __builtin_return_address(0));
  touch(to, 16, false, true, COPIED, __builtin_return_address(0));
}

void emulated::stream_turns(const void *which, bool kernel) {
  stream = which;
  if (!kernel) line[which] = 0;
  else if (!line[which]) line[which] = grid + 1;
}
void emulated::grid_begins(const kernel_call &which) {
  call = &which;
  grid++;
  stream_of.push_back(stream);
  line_begin = line[stream];
  told_at.clear();
}
void emulated::grid_ends() {
  prove_writes();
  call = nullptr;
  stack_bytes = 0;
  end_if_found();
}

void emulated::block_goes_on(bool early) { block = &states[early]; }
void emulated::block_begins(bool early, uint64_t place, int threads, const void *dynamic, size_t bytes) {
  block = &states[early];
  block->number = (uint32_t)place;
  block->stamp = ++stamps;
  block->epoch = 0;
  block->n_threads = threads;
  block->dynamic = (uintptr_t)dynamic;
  block->dynamic_bytes = bytes;
  block->common = memory_view();
  block->own.clear();
  block->early = early;
  block->before.clear();
  memset(block->seen, 0, sizeof block->seen[0] * (size_t)((threads + 31) / 32));
  for (int i = 0; i < threads; i++) block->seen[i / 32][i % 32][i % 32] = 1;
}
/* What it read of device memory counts now. */
void emulated::block_has_turn() {
  int was = thread;
  block = &states[1];
  block->early = false;
  for (auto &a : block->before) {
    page *in;
    thread = a.mine.thread;
    if (word *w = device_word(a.at, &in)) {
      if (w->stamp != grid) clear(w, grid);
      if (call && call->overlaps) compare_early(w, a.mine);
      touch_word(w, a.at / 4 * 4, a.mine, false, false);
    }
  }
  block->before.clear();
  thread = was;
}

void emulated::thread_goes_on(int number, const void *stack, size_t bytes) {
  prove_writes();
  thread = number;
  stack_begin = (uintptr_t)stack;
  stack_bytes = bytes;
}
void emulated::thread_ends(size_t copies) {
  prove_writes();
  access mine = {block->number, now_of(thread), 0, (uint16_t)thread, 0, COPIED};
  if (copies) found("its thread ends and has not waited for it", mine, true, nullptr, false, true);
}

void emulated::block_joined() {
  for (auto &own : block->own) add(block->common, own.second);
  block->own.clear();
  block->epoch++;
  memset(block->seen, 0, sizeof block->seen[0] * (size_t)((block->n_threads + 31) / 32));
  for (int i = 0; i < block->n_threads; i++) block->seen[i / 32][i % 32][i % 32] = 1;
}

void emulated::warp_joined(int warp, unsigned mask) {
  auto &seen = block->seen[warp];
  uint16_t all[32] = {};
  memory_view views;
  for (int lane = 0; lane < 32; lane++) {
    if (!(mask >> lane & 1)) continue;
    for (int i = 0; i < 32; i++) all[i] = std::max(all[i], seen[lane][i]);
    auto own = block->own.find(32 * warp + lane);
    if (own != block->own.end()) add(views, own->second);
  }
  for (int lane = 0; lane < 32; lane++) {
    if (!(mask >> lane & 1)) continue;
    memcpy(seen[lane], all, sizeof all);
    seen[lane][lane]++;
    if (!views.empty()) add(block->own[32 * warp + lane], views);
  }
}

void emulated::memory_begins(const void *at, size_t bytes, bool locked) {
  std::lock_guard<std::mutex> lock(guard);
  regions[(uintptr_t)at] = {bytes, locked};
  changes = changes + 1;
}
void emulated::memory_ends(const void *at) {
  std::lock_guard<std::mutex> lock(guard);
  auto which = regions.find((uintptr_t)at);
  if (which == regions.end()) return;
  for (uintptr_t number = (uintptr_t)at / PAGE; number <= ((uintptr_t)at + which->second.bytes) / PAGE; number++) {
    auto found_page = pages.find(number);
    if (found_page == pages.end()) continue;
    free(found_page->second->words);
    free(found_page->second);
    pages.erase(found_page);
  }
  regions.erase(which);
  changes = changes + 1;
}
void emulated::memory_written(const void *at, size_t bytes) {
  std::lock_guard<std::mutex> lock(guard);
  for (uintptr_t next, begin = (uintptr_t)at, end = begin + bytes; begin < end; begin = next) {
    next = std::min(end, begin / PAGE * PAGE + PAGE);
    page *in = page_of(begin);
    for (uintptr_t i = begin; in && i < next; i++) in->written[i % PAGE / 8] |= (uint8_t)(1u << i % 8);
  }
}

/* ---- what kernels do: the functions that gcc calls -------------------------------------------------------------------------------- */

#define HOOK extern "C" __attribute__((visibility("hidden")))
#define CALLER __builtin_return_address(0)
#define PAIR(name, bytes)                                                                              \
  HOOK void __tsan_read##name(void *at) { touch(at, bytes, true, false, PLAIN, CALLER); }              \
  HOOK void __tsan_write##name(void *at) { touch(at, bytes, false, true, PLAIN, CALLER); }             \
  HOOK void __tsan_unaligned_read##name(void *at) { touch(at, bytes, true, false, PLAIN, CALLER); }    \
  HOOK void __tsan_unaligned_write##name(void *at) { touch(at, bytes, false, true, PLAIN, CALLER); }   \
  HOOK void __tsan_volatile_read##name(void *at) { touch(at, bytes, true, false, PLAIN, CALLER); }     \
  HOOK void __tsan_volatile_write##name(void *at) { touch(at, bytes, false, true, PLAIN, CALLER); }
PAIR(1, 1)
PAIR(2, 2)
PAIR(4, 4)
PAIR(8, 8)
PAIR(16, 16)
HOOK void __tsan_read_range(void *at, size_t bytes) { touch(at, bytes, true, false, PLAIN, CALLER); }
HOOK void __tsan_write_range(void *at, size_t bytes) { touch(at, bytes, false, true, PLAIN, CALLER); }
HOOK void __tsan_func_entry(void *) {}
HOOK void __tsan_func_exit(void) {}
HOOK void __tsan_init(void) {}
