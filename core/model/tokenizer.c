/* tokenizer.c: owns what all kinds share: BOS, the added tokens that are cut out of a text first, and the way
 * back to bytes. Does not know how ordinary text becomes ids (tokenizer_bpe.c, tokenizer_characters.c) nor
 * how a tokenizer is stored. */
#include "core/model/tokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/unicode.h"
#include "core/base/utf8.h"
#include "core/model/tokenizer_private.h"

/* Positions inside a pre-token are 32 bits wide. */
#define TEXT_BYTES_MAX ((size_t)1 << 30)

struct tokenizer *tokenizer_new(int32_t count, struct error *error) {
  struct tokenizer *t = calloc(1, sizeof *t);
  if (!t)
    return error_memory(error, sizeof *t), NULL;
  t->bos = t->eos = t->pad = t->sep = -1;
  if (pieces_init(&t->pieces, count, error) != 0) {
    free(t);
    return NULL;
  }
  return t;
}

void tokenizer_free(struct tokenizer *t) {
  if (!t)
    return;
  if (t->kind)
    t->kind->free(t->state);
  pieces_clear(&t->pieces);
  for (int i = 0; i < 2; i++)
    added_tokens_clear(&t->added[i]);
  normalizer_free(t->normalizer);
  chat_template_clear(&t->chat);
  free(t);
}

int tokenizer_mark_special(struct tokenizer *t, int32_t id, const char *content, size_t length,
                           struct error *error) {
  t->pieces.at[id].special = true;
  for (int i = 0; i < 2; i++) {
    struct added_token *token = added_tokens_of(&t->added[i], id);
    if (!token)
      continue;
    token->special = true;
    return 0;
  }
  return added_tokens_add(&t->added[0], (struct added_token){.id = id, .special = true}, content, length,
                          error);
}

/* A token that is sought in normalized texts shows what it was found as, as in the reference. */
static int show_normalized(struct tokenizer *t, struct error *error) {
  struct buffer shown;
  int result = 0;
  buffer_init(&shown, 0);
  for (size_t i = 0; i < t->added[1].count && result == 0; i++) {
    const struct added_token *token = &t->added[1].tokens[i];
    shown.length = 0;
    decoder_piece(&t->decoder, token->text, token->length, &shown);
    result = buffer_check(&shown, error);
    if (result == 0)
      result = pieces_set(&t->pieces, token->id, shown.data, shown.length, error);
  }
  buffer_clear(&shown);
  return result;
}

int tokenizer_finish(struct tokenizer *t, struct error *error) {
  for (int i = 0; i < 2; i++) {
    if (added_tokens_finish(&t->added[i], i ? t->normalizer : NULL, error) != 0)
      return -1;
    const struct added_token *bos = added_tokens_of(&t->added[i], t->bos);
    if (bos)
      t->bos_token = bos;
  }
  return t->normalizer ? show_normalized(t, error) : 0;
}

int32_t tokenizer_size(const struct tokenizer *t) { return t->pieces.count; }
int32_t tokenizer_bos(const struct tokenizer *t) { return t->bos; }
int32_t tokenizer_eos(const struct tokenizer *t) { return t->eos; }

size_t tokenizer_controls(const struct tokenizer *t, int32_t out[TOKENIZER_CONTROLS]) {
  const int32_t ids[TOKENIZER_CONTROLS] = {t->bos, t->eos, t->pad, t->sep};
  size_t n = 0;
  for (size_t i = 0; i < TOKENIZER_CONTROLS; i++) {
    size_t at = n;
    while (at > 0 && out[at - 1] > ids[i]) at--;
    if (ids[i] < 0 || (at > 0 && out[at - 1] == ids[i])) continue;
    memmove(out + at + 1, out + at, (n++ - at) * sizeof *out);
    out[at] = ids[i];
  }
  return n;
}
struct decoder_start tokenizer_start(const struct tokenizer *t) { return t->decoder.start; }
bool tokenizer_prepends_bos(const struct tokenizer *t) { return t->prepends_bos; }
const char *tokenizer_title(const struct tokenizer *t) { return t->kind->title(t->state); }

bool tokenizer_is_special(const struct tokenizer *t, int32_t id) {
  return pieces_has(&t->pieces, id) && t->pieces.at[id].special;
}

const char *tokenizer_bytes(const struct tokenizer *t, int32_t id, size_t *length) {
  return pieces_get(&t->pieces, id, length);
}

static int encode_part(const struct tokenizer *t, int level, bool special, const struct text_part *part,
                       struct id_list *ids, struct error *error);

/* The part as the normalizer makes it. */
static int encode_normalized(const struct tokenizer *t, bool special, const struct text_part *part,
                             struct id_list *ids, struct error *error) {
  struct buffer text;
  int result = normalizer_run(t->normalizer, part->text, part->length, part->offset == 0, &text, error);
  if (result == 0) {
    struct text_part changed = {text.data, text.length, part->offset, true, part->plain, part->n_plain};
    result = encode_part(t, 1, special, &changed, ids, error);
  }
  buffer_clear(&text);
  return result;
}

/* What stands between two added tokens goes to the next level, the last of which is the kind itself. */
static int encode_rest(const struct tokenizer *t, int level, bool special, const struct text_part *part,
                       size_t from, size_t to, struct id_list *ids, struct error *error) {
  if (from >= to)
    return 0;
  struct text_part rest = {part->text + from, to - from, part->offset + from, part->changed, part->plain, part->n_plain};
  if (level == 1)
    return t->kind->encode(t->state, &rest, ids, error);
  if (t->normalizer)
    return encode_normalized(t, special, &rest, ids, error);
  return encode_part(t, 1, special, &rest, ids, error);
}

/* Whether bytes [begin, end) of the part touch what must stay text. Where a normalizer changed the part, all of it might. */
static bool is_plain(const struct text_part *part, size_t begin, size_t end) {
  for (size_t i = 0; i < part->n_plain; i++)
    if (part->changed || (part->offset + begin < part->plain[i].end && part->plain[i].begin < part->offset + end)) return true;
  return false;
}

/* Cuts the added tokens of set `level` out of the part. */
static int encode_part(const struct tokenizer *t, int level, bool special, const struct text_part *part,
                       struct id_list *ids, struct error *error) {
  struct added_search search = {.text = part->text, .length = part->length, .special = special};
  size_t from = 0;
  while (added_tokens_next(&t->added[level], &search)) {
    if (search.token->special && is_plain(part, search.found, search.found + search.token->length)) {
      search.next = search.found + 1;
      search.end = from;
      continue;
    }
    if (encode_rest(t, level, special, part, from, search.match_begin, ids, error) != 0)
      return -1;
    if (id_list_push(ids, search.token->id, error) != 0)
      return -1;
    from = search.match_end;
  }
  return encode_rest(t, level, special, part, from, part->length, ids, error);
}

/* How many bytes at the front of the text are the BOS token itself. */
static size_t bos_prefix(const struct tokenizer *t, const char *text, size_t length) {
  const struct added_token *bos = t->bos_token;
  if (!bos || length < bos->content_length || memcmp(text, bos->content, bos->content_length) != 0)
    return 0;
  size_t end = bos->content_length;
  return end + (bos->rstrip ? unicode_space_prefix(text + end, length - end) : 0);
}

const struct chat_template *tokenizer_chat(const struct tokenizer *t) { return &t->chat; }

static int encode(const struct tokenizer *t, const char *text, size_t length, int flags, const struct tokenizer_range *plain,
                  size_t n_plain, int32_t **ids, size_t *count, struct error *error) {
  size_t bad, from = 0;
  *ids = NULL;
  *count = 0;
  if (length > TEXT_BYTES_MAX)
    return error_set(error, ERROR_LIMIT, "the text has %zu bytes, at most %zu become tokens", length,
                     TEXT_BYTES_MAX);
  if (!utf8_valid(text, length, &bad))
    return error_set(error, ERROR_ARGUMENT, "the text is not valid UTF-8 at byte %zu", bad);
  struct id_list list = {0};
  if ((flags & TOKENIZE_BOS) && t->bos >= 0) {
    from = bos_prefix(t, text, length);
    if (id_list_push(&list, t->bos, error) != 0)
      return -1;
  }
  struct text_part part = {text + from, length - from, from, false, plain, n_plain};
  if (encode_part(t, 0, (flags & TOKENIZE_SPECIAL) != 0, &part, &list, error) != 0) {
    free(list.ids);
    return -1;
  }
  *ids = list.ids;
  *count = list.count;
  return 0;
}

int tokenizer_encode(const struct tokenizer *t, const char *text, size_t length, int flags, int32_t **ids,
                     size_t *count, struct error *error) {
  return encode(t, text, length, flags, NULL, 0, ids, count, error);
}

int tokenizer_encode_around(const struct tokenizer *t, const char *text, size_t length, const struct tokenizer_range *plain,
                            size_t n_plain, int32_t **ids, size_t *count, struct error *error) {
  return encode(t, text, length, TOKENIZE_SPECIAL, plain, n_plain, ids, count, error);
}
