/* A pickle is a program for a small stack machine (CPython's Lib/pickletools.py describes it); ours has the
 * opcodes that move data and none of the others. One function an opcode, one table. What the globals mean is
 * the caller's business. */
#include "core/model/pickle.h"

#include <stdio.h>
#include <string.h>

#include "core/base/checked.h"
#include "core/base/utf8.h"

#define STACK_MAX ((size_t)65536)
#define MEMO_MAX ((size_t)1048576)
#define GLOBAL_MAX 256

struct machine {
  const unsigned char *data;
  size_t size, at, next; /* the opcode being run; the first byte not yet read */
  struct pickle_value **stack;
  size_t *marks; /* stack heights */
  size_t height, n_marks, stack_room;
  struct pickle_value **memo;
  size_t memo_room, memo_used;
  const struct pickle_global *globals;
  size_t n_globals;
  bool stopped;
  struct arena *arena;
  struct error *error;
};

static int fail(struct machine *m, const char *format, ...) ERROR_PRINTF(2, 3);
static int fail(struct machine *m, const char *format, ...) {
  char text[384];
  va_list args;
  va_start(args, format);
  vsnprintf(text, sizeof text, format, args);
  va_end(args);
  return error_set(m->error, ERROR_FORMAT, "pickle byte %zu: %s", m->at, text);
}

/* ---- bytes, values, stack ---- */

static const unsigned char *take(struct machine *m, uint64_t n) {
  if (n > m->size - m->next) {
    fail(m, "opcode 0x%02x needs %llu bytes more, the pickle has %zu", m->data[m->at], (unsigned long long)n,
         m->size - m->next);
    return NULL;
  }
  const unsigned char *bytes = m->data + m->next;
  m->next += (size_t)n;
  return bytes;
}

/* A little-endian number of `bytes` (1, 2, 4 or 8). */
static int take_number(struct machine *m, size_t bytes, uint64_t *out) {
  const unsigned char *p = take(m, bytes);
  if (!p) return -1;
  *out = 0;
  for (size_t i = bytes; i-- > 0;) *out = *out << 8 | p[i];
  return 0;
}

static struct pickle_value *new_value(struct machine *m, enum pickle_kind kind) {
  struct pickle_value *value = arena_alloc(m->arena, sizeof *value, m->error);
  if (value) value->kind = kind;
  return value;
}

static int push(struct machine *m, struct pickle_value *value) {
  if (!value) return -1;
  if (m->height == m->stack_room) return fail(m, "the stack grows over %zu entries", m->stack_room);
  m->stack[m->height++] = value;
  return 0;
}

/* Entries above the last mark: an opcode without a mark of its own must not reach below it. */
static size_t in_reach(const struct machine *m) { return m->height - (m->n_marks ? m->marks[m->n_marks - 1] : 0); }

static struct pickle_value *pop(struct machine *m) {
  if (in_reach(m) == 0) return fail(m, "opcode 0x%02x finds the stack empty", m->data[m->at]), NULL;
  return m->stack[--m->height];
}

static struct pickle_value *top(struct machine *m) {
  struct pickle_value *value = pop(m);
  if (value) m->height++;
  return value;
}

/* Takes away the last mark; *first is the stack height it remembered. */
static int pop_mark(struct machine *m, size_t *first) {
  if (m->n_marks == 0) return fail(m, "opcode 0x%02x finds no mark", m->data[m->at]);
  *first = m->marks[--m->n_marks];
  return 0;
}

static int append_items(struct machine *m, struct pickle_value *to, struct pickle_value **items, size_t n) {
  size_t need = to->as.items.count + n;
  if (need > to->as.items.capacity) {
    size_t capacity = size_max(need, to->as.items.capacity * 2);
    struct pickle_value **list = arena_array(m->arena, capacity, sizeof *list, m->error);
    if (!list) return -1;
    if (to->as.items.count) memcpy(list, to->as.items.list, to->as.items.count * sizeof *list);
    to->as.items.list = list;
    to->as.items.capacity = capacity;
  }
  if (n) memcpy(to->as.items.list + to->as.items.count, items, n * sizeof *items);
  to->as.items.count = need;
  return 0;
}

/* ---- opcodes that push constants ---- */

static struct pickle_value none_value = {.kind = PICKLE_NONE};
static struct pickle_value true_value = {.kind = PICKLE_BOOL, .as.boolean = true};
static struct pickle_value false_value = {.kind = PICKLE_BOOL, .as.boolean = false};

static int op_none(struct machine *m) { return push(m, &none_value); }
static int op_true(struct machine *m) { return push(m, &true_value); }
static int op_false(struct machine *m) { return push(m, &false_value); }

static int push_int(struct machine *m, int64_t integer) {
  struct pickle_value *value = new_value(m, PICKLE_INT);
  if (value) value->as.integer = integer;
  return push(m, value);
}

static int push_unsigned(struct machine *m, size_t bytes) {
  uint64_t number;
  return take_number(m, bytes, &number) == 0 ? push_int(m, (int64_t)number) : -1;
}

static int op_binint1(struct machine *m) { return push_unsigned(m, 1); }
static int op_binint2(struct machine *m) { return push_unsigned(m, 2); }

static int op_binint(struct machine *m) {
  uint64_t number;
  return take_number(m, 4, &number) == 0 ? push_int(m, (int32_t)(uint32_t)number) : -1;
}

/* Two's complement, little endian, as many bytes as it needs. */
static int op_long1(struct machine *m) {
  uint64_t n, number = 0;
  if (take_number(m, 1, &n) != 0) return -1;
  if (n > 8) return fail(m, "an integer of %llu bytes, at most 8 are read", (unsigned long long)n);
  const unsigned char *p = take(m, n);
  if (!p) return -1;
  if (n && p[n - 1] & 0x80) number = UINT64_MAX;
  for (size_t i = (size_t)n; i-- > 0;) number = number << 8 | p[i];
  return push_int(m, (int64_t)number);
}

static int op_binfloat(struct machine *m) { /* the one big-endian number of the format */
  const unsigned char *p = take(m, 8);
  struct pickle_value *value = p ? new_value(m, PICKLE_REAL) : NULL;
  if (!value) return -1;
  uint64_t bits = 0;
  for (int i = 0; i < 8; i++) bits = bits << 8 | p[i];
  memcpy(&value->as.real, &bits, sizeof bits);
  return push(m, value);
}

static int push_text(struct machine *m, size_t length_bytes) {
  uint64_t length;
  size_t bad;
  if (take_number(m, length_bytes, &length) != 0) return -1;
  const char *data = (const char *)take(m, length);
  if (!data) return -1;
  if (!utf8_valid(data, (size_t)length, &bad)) return fail(m, "a string is not UTF-8 from its byte %zu on", bad);
  struct pickle_value *value = new_value(m, PICKLE_TEXT);
  if (!value) return -1;
  value->as.text.data = data;
  value->as.text.length = (size_t)length;
  return push(m, value);
}

static int op_short_binunicode(struct machine *m) { return push_text(m, 1); }
static int op_binunicode(struct machine *m) { return push_text(m, 4); }
static int op_binunicode8(struct machine *m) { return push_text(m, 8); }

/* ---- opcodes that build ---- */

static int op_empty_tuple(struct machine *m) { return push(m, new_value(m, PICKLE_TUPLE)); }
static int op_empty_list(struct machine *m) { return push(m, new_value(m, PICKLE_LIST)); }
static int op_empty_dict(struct machine *m) { return push(m, new_value(m, PICKLE_DICT)); }

static int op_mark(struct machine *m) {
  if (m->n_marks == m->stack_room) return fail(m, "more than %zu marks", m->stack_room);
  m->marks[m->n_marks++] = m->height;
  return 0;
}

static int tuple_from(struct machine *m, size_t first) {
  struct pickle_value *tuple = new_value(m, PICKLE_TUPLE);
  if (!tuple || append_items(m, tuple, m->stack + first, m->height - first) != 0) return -1;
  m->height = first;
  return push(m, tuple);
}

static int tuple_of(struct machine *m, size_t n) {
  if (in_reach(m) < n) return fail(m, "a tuple of %zu finds %zu on the stack", n, in_reach(m));
  return tuple_from(m, m->height - n);
}

static int op_tuple1(struct machine *m) { return tuple_of(m, 1); }
static int op_tuple2(struct machine *m) { return tuple_of(m, 2); }
static int op_tuple3(struct machine *m) { return tuple_of(m, 3); }

static int op_tuple(struct machine *m) {
  size_t first = 0;
  return pop_mark(m, &first) == 0 ? tuple_from(m, first) : -1;
}

/* Moves what stands from `first` on into the container below it, which stays on the stack. */
static int move_into(struct machine *m, size_t first, enum pickle_kind kind) {
  size_t n = m->height - first;
  m->height = first;
  struct pickle_value *to = top(m);
  if (!to) return -1;
  if (to->kind != kind)
    return fail(m, "opcode 0x%02x finds %s where %s is expected", m->data[m->at], pickle_kind_word(to->kind),
                pickle_kind_word(kind));
  if (kind == PICKLE_DICT && n % 2) return fail(m, "a key has no value");
  return append_items(m, to, m->stack + first, n);
}

static int move_last(struct machine *m, size_t n, enum pickle_kind kind) {
  if (in_reach(m) < n)
    return fail(m, "opcode 0x%02x finds %zu on the stack, needs %zu", m->data[m->at], in_reach(m), n);
  return move_into(m, m->height - n, kind);
}

static int move_marked(struct machine *m, enum pickle_kind kind) {
  size_t first = 0;
  return pop_mark(m, &first) == 0 ? move_into(m, first, kind) : -1;
}

static int op_append(struct machine *m) { return move_last(m, 1, PICKLE_LIST); }
static int op_appends(struct machine *m) { return move_marked(m, PICKLE_LIST); }
static int op_setitem(struct machine *m) { return move_last(m, 2, PICKLE_DICT); }
static int op_setitems(struct machine *m) { return move_marked(m, PICKLE_DICT); }

/* ---- the memo ---- */

static int memo_put(struct machine *m, uint64_t slot) {
  struct pickle_value *value = top(m);
  if (!value) return -1;
  if (slot >= m->memo_room)
    return fail(m, "memo slot %llu, at most %zu fit this pickle", (unsigned long long)slot, m->memo_room);
  m->memo_used += !m->memo[slot];
  m->memo[slot] = value;
  return 0;
}

static int put_slot(struct machine *m, size_t bytes) {
  uint64_t slot;
  return take_number(m, bytes, &slot) == 0 ? memo_put(m, slot) : -1;
}

static int get_slot(struct machine *m, size_t bytes) {
  uint64_t slot;
  if (take_number(m, bytes, &slot) != 0) return -1;
  if (slot >= m->memo_room || !m->memo[slot]) return fail(m, "memo slot %llu is empty", (unsigned long long)slot);
  return push(m, m->memo[slot]);
}

static int op_binput(struct machine *m) { return put_slot(m, 1); }
static int op_long_binput(struct machine *m) { return put_slot(m, 4); }
static int op_memoize(struct machine *m) { return memo_put(m, m->memo_used); }
static int op_binget(struct machine *m) { return get_slot(m, 1); }
static int op_long_binget(struct machine *m) { return get_slot(m, 4); }

/* ---- names and what stands for calls ---- */

static int push_global(struct machine *m, const char *module, size_t module_length, const char *name,
                       size_t name_length) {
  char full[GLOBAL_MAX];
  int length = snprintf(full, sizeof full, "%.*s.%.*s", (int)size_min(module_length, GLOBAL_MAX), module,
                        (int)size_min(name_length, GLOBAL_MAX), name);
  /* The length in bytes must agree too, or a NUL inside a name would make it another one. */
  for (size_t i = 0; i < m->n_globals; i++) {
    if (strcmp(m->globals[i].name, full) != 0 || (size_t)length != module_length + 1 + name_length) continue;
    struct pickle_value *value = new_value(m, PICKLE_GLOBAL);
    if (value) value->as.global = &m->globals[i];
    return push(m, value);
  }
  return fail(m,
              "it names '%.120s', which a file of tensors may not; save it again as safetensors or as a plain "
              "dict of tensors",
              full);
}

/* Text up to a newline, which is taken too. */
static const char *take_line(struct machine *m, size_t *length) {
  const unsigned char *begin = m->data + m->next, *end = memchr(begin, '\n', m->size - m->next);
  if (!end) return fail(m, "a name has no end"), NULL;
  *length = (size_t)(end - begin);
  m->next += *length + 1;
  return (const char *)begin;
}

static int op_global(struct machine *m) {
  size_t module_length, name_length;
  const char *module = take_line(m, &module_length);
  const char *name = module ? take_line(m, &name_length) : NULL;
  return name ? push_global(m, module, module_length, name, name_length) : -1;
}

static int op_stack_global(struct machine *m) {
  const struct pickle_value *name = pop(m), *module = name ? pop(m) : NULL;
  if (!module) return -1;
  if (name->kind != PICKLE_TEXT || module->kind != PICKLE_TEXT) return fail(m, "a global's name is not a string");
  return push_global(m, module->as.text.data, module->as.text.length, name->as.text.data, name->as.text.length);
}

static int op_binpersid(struct machine *m) {
  const struct pickle_value *id = pop(m);
  struct pickle_value *value = id ? new_value(m, PICKLE_PERSISTENT) : NULL;
  if (value) value->as.id = id;
  return push(m, value);
}

static int op_reduce(struct machine *m) {
  const struct pickle_value *arguments = pop(m), *callee = arguments ? pop(m) : NULL;
  if (!callee) return -1;
  if (callee->kind != PICKLE_GLOBAL || arguments->kind != PICKLE_TUPLE)
    return fail(m, "a call needs a name and a tuple, found %s and %s", pickle_kind_word(callee->kind),
                pickle_kind_word(arguments->kind));
  const struct pickle_global *global = callee->as.global;
  if (global->call == PICKLE_CALL_REFUSE) return fail(m, "'%s' may be named but not called", global->name);
  if (global->call == PICKLE_CALL_DICT) {
    if (arguments->as.items.count) return fail(m, "'%s' is called with arguments", global->name);
    return push(m, new_value(m, PICKLE_DICT));
  }
  struct pickle_value *object = new_value(m, PICKLE_OBJECT);
  if (!object) return -1;
  object->as.object.callee = global;
  object->as.object.arguments = arguments;
  return push(m, object);
}

/* Attributes of a dict (torch hangs `_metadata` on a state dict) are dropped; nothing else may have any. */
static int op_build(struct machine *m) {
  const struct pickle_value *state = pop(m), *to = state ? top(m) : NULL;
  if (!to) return -1;
  if (to->kind == PICKLE_DICT && state->kind == PICKLE_DICT) return 0;
  return fail(m, "attributes are set on %s, only a dict may have them", pickle_kind_word(to->kind));
}

/* ---- the frame ---- */

static int op_proto(struct machine *m) {
  uint64_t version;
  if (m->at != 0) return fail(m, "the protocol is named again");
  if (take_number(m, 1, &version) != 0) return -1;
  if (version < 2 || version > 5) return fail(m, "protocol %u, expected 2 to 5", (unsigned)version);
  return 0;
}

static int op_frame(struct machine *m) { /* a hint for readers of streams */
  uint64_t length;
  if (take_number(m, 8, &length) != 0) return -1;
  if (length > m->size - m->next)
    return fail(m, "a frame of %llu bytes, the pickle has %zu", (unsigned long long)length, m->size - m->next);
  return 0;
}

static int op_stop(struct machine *m) {
  if (m->height != 1 || m->n_marks)
    return fail(m, "the pickle ends with %zu values and %zu marks on the stack, expected 1 and 0", m->height,
                m->n_marks);
  if (m->next != m->size) return fail(m, "%zu bytes stand behind the end", m->size - m->next);
  m->stopped = true;
  return 0;
}

static int (*const opcodes[256])(struct machine *) = {
    [0x80] = op_proto,                [0x95] = op_frame,        ['.'] = op_stop,
    ['N'] = op_none,                  [0x88] = op_true,         [0x89] = op_false,
    ['J'] = op_binint,                ['K'] = op_binint1,       ['M'] = op_binint2,
    [0x8A] = op_long1,                ['G'] = op_binfloat,      ['X'] = op_binunicode,
    [0x8C] = op_short_binunicode,     [0x8D] = op_binunicode8,  [')'] = op_empty_tuple,
    [']'] = op_empty_list,            ['}'] = op_empty_dict,    ['('] = op_mark,
    ['t'] = op_tuple,                 [0x85] = op_tuple1,       [0x86] = op_tuple2,
    [0x87] = op_tuple3,               ['a'] = op_append,        ['e'] = op_appends,
    ['s'] = op_setitem,               ['u'] = op_setitems,      ['q'] = op_binput,
    ['r'] = op_long_binput,           [0x94] = op_memoize,      ['h'] = op_binget,
    ['j'] = op_long_binget,           ['c'] = op_global,        [0x93] = op_stack_global,
    ['Q'] = op_binpersid,             ['R'] = op_reduce,        ['b'] = op_build};

static int step(struct machine *m) {
  if (m->next == m->size) {
    m->at = m->size;
    return fail(m, "the pickle has no end");
  }
  m->at = m->next++;
  unsigned char code = m->data[m->at];
  if (!opcodes[code]) return fail(m, "opcode 0x%02x is not one that a file of tensors needs", code);
  return opcodes[code](m);
}

static int machine_init(struct machine *m) {
  m->stack_room = size_min(m->size, STACK_MAX);
  m->memo_room = size_min(m->size, MEMO_MAX);
  m->stack = arena_array(m->arena, m->stack_room, sizeof *m->stack, m->error);
  m->marks = arena_array(m->arena, m->stack_room, sizeof *m->marks, m->error);
  m->memo = arena_array(m->arena, m->memo_room, sizeof *m->memo, m->error);
  return m->stack && m->marks && m->memo ? 0 : -1;
}

const struct pickle_value *pickle_read(const unsigned char *data, size_t size, const struct pickle_global *globals,
                                       size_t n_globals, struct arena *arena, struct error *error) {
  struct machine m = {.data = data, .size = size, .globals = globals, .n_globals = n_globals, .arena = arena,
                      .error = error};
  if (size < 2 || data[0] != 0x80) return error_set(error, ERROR_FORMAT, "pickle byte 0: no protocol 2 to 5"), NULL;
  if (machine_init(&m) != 0) return NULL;
  while (!m.stopped)
    if (step(&m) != 0) return NULL;
  return m.stack[0];
}

const char *pickle_kind_word(enum pickle_kind kind) {
  static const char *const words[] = {"None",   "a boolean", "an integer", "a number", "a string",       "a tuple",
                                      "a list", "a dict",    "a name",     "a storage", "a built object"};
  return words[kind];
}

bool pickle_is_text(const struct pickle_value *value, const char *text) {
  return value->kind == PICKLE_TEXT && value->as.text.length == strlen(text) &&
         memcmp(value->as.text.data, text, value->as.text.length) == 0;
}
